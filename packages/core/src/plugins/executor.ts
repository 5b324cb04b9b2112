/** Where the jobs of a recipe run: here, in workers, on other machines. */
export interface Executor {
  readonly kind: 'executor'
  readonly name: string
  /** Runs jobs side by side as far as it can; results in the order of the jobs; the first error wins. */
  run<T>(jobs: readonly (() => Promise<T>)[], signal?: AbortSignal): Promise<T[]>
}

/** One job after the other in this process; kernels use their own threads inside each. */
export function inProcess(): Executor {
  return {
    kind: 'executor',
    name: 'in-process',
    async run(jobs, signal) {
      const results = []
      for (const job of jobs) {
        signal?.throwIfAborted()
        results.push(await job())
      }
      return results
    },
  }
}
