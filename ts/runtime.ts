// Which runtime this is, where that makes a difference.
const versions: Partial<Record<string, string>> = process.versions

/** A runtime whose event loop is not libuv. Undefined in Node. */
export const other = versions['bun'] !== undefined ? 'Bun' : versions['deno'] !== undefined ? 'Deno' : undefined
