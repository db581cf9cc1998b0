// Which runtime this is, where that makes a difference.

/** A runtime whose event loop is not libuv. Undefined in Node. */
export function other(): 'Bun' | 'Deno' | undefined {
  const versions: Partial<Record<string, string>> = process.versions
  return versions['bun'] !== undefined ? 'Bun' : versions['deno'] !== undefined ? 'Deno' : undefined
}
