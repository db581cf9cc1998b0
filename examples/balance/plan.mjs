// Which descriptor is to move. Pure: from what was measured, to a name and a number.

/** A move that makes less of a difference to the busiest thread is not worth it. */
const WORTH = 0.95

/**
 * The descriptor of the busiest thread that leaves the two of them most even when it moves to the idlest one. A descriptor's
 * share of its thread's load is taken to be its share of the events. By 'cpu' the load is CPU time; by 'events' it is their
 * number, for events that all cost the same.
 */
export function plan(measured, by = 'cpu') {
  const members = by === 'cpu' ? measured : measured.map((member) => ({ ...member, load: member.events }))
  const byLoad = members.toSorted((a, b) => a.load - b.load)
  const [idlest, busiest] = [byLoad[0], byLoad.at(-1)]
  const events = busiest.sources.reduce((sum, source) => sum + source.events, 0)
  let best = { most: busiest.load * WORTH }
  for (const source of busiest.sources) {
    const load = (busiest.load * source.events) / events
    const most = Math.max(busiest.load - load, idlest.load + load)
    if (most < best.most) best = { most, number: source.number, to: idlest.name }
  }
  return best.to === undefined ? undefined : best
}
