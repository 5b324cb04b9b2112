/** Clocks, and runs of several contestants in turn. */

/** Seconds on the clock and of the CPU (user and system, all threads of the process). */
export interface Usage {
  readonly wall: number
  readonly cpu: number
}

/** Does a fixed piece of work once. */
export interface Contestant {
  readonly name: string
  once(): Promise<Usage>
}

export interface Outcome extends Usage {
  readonly name: string
}

export function cpuSeconds(): number {
  const { userCPUTime, systemCPUTime } = process.resourceUsage()
  return (userCPUTime + systemCPUTime) / 1e6
}

export async function timed(work: () => unknown): Promise<Usage> {
  const wall = performance.now()
  const cpu = cpuSeconds()
  await work()
  return { wall: (performance.now() - wall) / 1000, cpu: cpuSeconds() - cpu }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** A B C, A B C, …: whatever else the machine does meets all alike. Medians over the rounds. */
export async function interleave(
  contestants: readonly Contestant[],
  rounds: number,
): Promise<Outcome[]> {
  const seen = contestants.map((): Usage[] => [])
  for (let round = 0; round < rounds; round++) {
    for (const [i, contestant] of contestants.entries()) seen[i].push(await contestant.once())
  }
  return contestants.map(({ name }, i) => ({
    name,
    wall: median(seen[i].map(({ wall }) => wall)),
    cpu: median(seen[i].map(({ cpu }) => cpu)),
  }))
}

/** Short work is repeated until it fills some time, after a first run that warms it up. */
export async function repeated(
  name: string,
  work: () => unknown,
  seconds: number,
): Promise<Contestant> {
  await work()
  const { wall } = await timed(work)
  const times = Math.max(1, Math.round(seconds / Math.max(wall, 1e-6)))
  return {
    name,
    async once() {
      const { wall, cpu } = await timed(async () => {
        for (let i = 0; i < times; i++) await work()
      })
      return { wall: wall / times, cpu: cpu / times }
    },
  }
}
