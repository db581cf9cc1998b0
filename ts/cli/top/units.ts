// Numbers for people: short, and never more exact than they are.

/** A rate or a count: 0, 0.4, 87, 1234, 12.3k, 4.5M */
export function count(value: number): string {
  if (value === 0) return '0'
  if (value < 9.95) return value.toFixed(1)
  if (value < 9999.5) return `${Math.round(value)}`
  return value < 999_500 ? `${(value / 1e3).toFixed(value < 99_950 ? 1 : 0)}k` : `${(value / 1e6).toFixed(value < 99_950_000 ? 1 : 0)}M`
}

/** Nanoseconds: 850 ns, 12.8 µs, 3.4 ms, 2.5 s */
export function duration(ns: number): string {
  if (ns < 1e3) return `${Math.round(ns)} ns`
  if (ns < 1e6) return `${three(ns / 1e3)} µs`
  if (ns < 1e9) return `${three(ns / 1e6)} ms`
  return `${three(ns / 1e9)} s`
}

function three(value: number): string {
  return value >= 99.95 ? `${Math.round(value)}` : value.toFixed(1).replace(/\.0$/, '')
}

/** A share: 0 %, 1.2 %, 34 % */
export function percent(share: number): string {
  const value = share * 100
  return `${value === 0 || value >= 9.95 ? Math.round(value) : value.toFixed(1)} %`
}

const BARS = '▁▂▃▄▅▆▇█'

/** The latest values as bars of up to `most`; a dot for none. */
export function sparkline(values: readonly number[], most: number, width: number): string {
  const bar = (value: number): string => (value <= 0 ? '·' : (BARS[Math.min(7, Math.ceil((8 * value) / Math.max(most, 1)) - 1)] ?? '█'))
  return values.slice(-width).map(bar).join('')
}
