import { crc32 } from '../../examples/kvlog/crc32.js'

/** The value of a key in the tests that kill: up to 12 KB, now and then 400 KB, so that a write takes its time. */
export function valueOf(key: string): string {
  const sum = crc32(Buffer.from(key))
  return `${key} `.repeat(sum % 97 === 0 ? 40_000 : sum % 1_200)
}
