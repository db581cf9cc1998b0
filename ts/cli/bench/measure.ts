// The rounds: in each, every cell has its turn, and each round begins with another, so that all of them meet the same machine.
import { Child } from './child.js'
import type { Cell, Place } from './plan.js'
import type { Sample, Task } from './protocol.js'

/** A cell, and what each of its rounds found; the first failure ends it. */
export interface Measured {
  cell: Cell
  samples: Sample[]
  failed: string | undefined
}

/** What a child is asked. */
export function taskOf({ monitor, policy, gapUs, place, events }: Cell, windowUs: number): Task {
  const warmUp = Math.max(20, Math.ceil(events / 4))
  return { monitor, policy, gapNs: gapUs * 1000, windowNs: windowUs * 1000, guards: place.guards, warmUp, events }
}

/** Measures all cells; `onCell` hears which one is next. */
export async function measureAll(
  cells: readonly Cell[],
  { rounds, windowUs }: { rounds: number; windowUs: number },
  onCell: (cell: Cell, round: number) => void,
): Promise<Measured[]> {
  const all = cells.map((cell): Measured => ({ cell, samples: [], failed: undefined }))
  const children = new Map<Place, Child>()
  for (let round = 0; round < rounds; round++) {
    const first = Math.floor((round * all.length) / rounds)
    for (const measured of [...all.slice(first), ...all.slice(0, first)]) {
      const { cell } = measured
      onCell(cell, round)
      if (measured.failed !== undefined) continue
      let child = children.get(cell.place)
      if (child === undefined || child.ended) children.set(cell.place, (child = new Child(cell.place)))
      const answer = await child.measure(taskOf(cell, windowUs))
      if ('failed' in answer) measured.failed = answer.failed
      else measured.samples.push(answer)
    }
  }
  await Promise.all([...children.values()].map((child) => child.end()))
  return all
}
