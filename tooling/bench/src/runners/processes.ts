/** CPU seconds of a process and all that it started, where there is /proc. */

import { readdirSync, readFileSync } from 'node:fs'

/** Ticks of a second in /proc, on every Linux. */
const TICKS = 100

export function treeCpuSeconds(root: number): number {
  const parents = new Map<number, number>()
  const used = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    const id = Number(name)
    if (!Number.isInteger(id)) continue
    try {
      const line = readFileSync(`/proc/${id}/stat`, 'latin1')
      // The name in brackets may hold anything; numbers follow it.
      const fields = line.slice(line.lastIndexOf(')') + 2).split(' ')
      parents.set(id, Number(fields[1]))
      // Its own, and what its finished children used.
      const ticks = [11, 12, 13, 14].map((i) => Number(fields[i]))
      used.set(
        id,
        ticks.reduce((a, b) => a + b),
      )
    } catch {
      // It ended meanwhile.
    }
  }
  let sum = 0
  for (const [id, ticks] of used) {
    let at: number | undefined = id
    while (at && at !== root) at = parents.get(at)
    if (at === root) sum += ticks
  }
  return sum / TICKS
}
