export function write() {}
