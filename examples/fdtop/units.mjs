// Numbers for people: short, with a unit, never wider than they must be.

/** 12345 → 12 345 */
export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ' ')
}

/** Nanoseconds → 850 ns, 12.8 µs, 3.4 ms, 2.50 s */
export function duration(ns) {
  if (ns < 1e3) return `${Math.round(ns)} ns`
  if (ns < 1e6) return `${short(ns / 1e3)} µs`
  if (ns < 1e9) return `${short(ns / 1e6)} ms`
  return `${(ns / 1e9).toFixed(2)} s`
}

/** 0.123 → 12.3 % */
export function percent(share) {
  return `${(share * 100).toFixed(share === 1 ? 0 : 1)} %`
}

/** A number of times a second → 1 003 /s */
export function rate(perSecond) {
  return `${count(Math.max(Math.round(perSecond), 0))} /s`
}

function short(value) {
  return value === 0 || value >= 100 ? String(Math.round(value)) : value.toFixed(1).replace(/\.0$/, '')
}
