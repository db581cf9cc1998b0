// Why a row is lost, by workload and peer; `*` stands for every one. A row that is lost and has no reason here fails the script.

const REASONS = {
}

/** The reason for which a peer needs less of `what` in a workload. */
export function reasonOf(workload, peer, what) {
  const keys = [`${workload}/${peer}/${what}`, `${workload}/${peer}`, `${workload}/*/${what}`, `*/${peer}/${what}`]
  return keys.map((key) => REASONS[key]).find((reason) => reason !== undefined)
}
