/** Where a GPU's time goes: each dispatch in a pass of its own, between two timestamps. */

/** What a shader took: how often it ran, and for how many ms in all. */
export interface ShaderTime {
  readonly name: string
  readonly runs: number
  readonly ms: number
}

export interface Profile {
  /** The descriptor of the pass of a shader's next dispatch. */
  pass(name: string): GPUComputePassDescriptor
  /** Adds what the passes since the last call take to the commands that end them. */
  resolve(commands: GPUCommandEncoder): void
  /** Shaders by the time they took until now, the slowest first. */
  times(): Promise<ShaderTime[]>
}

/** Timestamps of `most` dispatches of a batch; the device has `timestamp-query`. */
export function createProfile(gpu: GPUDevice, most: number): Profile {
  const size = most * 16
  const queries = gpu.createQuerySet({ type: 'timestamp', count: most * 2 })
  const resolved = gpu.createBuffer({
    size,
    usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
  })
  const totals = new Map<string, { runs: number; ms: number }>()
  const waiting: { names: string[]; target: GPUBuffer }[] = []
  let names: string[] = []
  return {
    pass(name) {
      const first = names.length * 2
      names.push(name)
      return {
        timestampWrites: {
          querySet: queries,
          beginningOfPassWriteIndex: first,
          endOfPassWriteIndex: first + 1,
        },
      }
    },
    resolve(commands) {
      if (names.length === 0) return
      const target = gpu.createBuffer({
        size,
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      })
      commands.resolveQuerySet(queries, 0, names.length * 2, resolved, 0)
      commands.copyBufferToBuffer(resolved, 0, target, 0, names.length * 16)
      waiting.push({ names, target })
      names = []
    },
    async times() {
      for (const { names, target } of waiting.splice(0)) {
        await target.mapAsync(GPUMapMode.READ)
        const stamps = new BigUint64Array(target.getMappedRange())
        for (const [i, name] of names.entries()) {
          const total = totals.get(name) ?? { runs: 0, ms: 0 }
          total.runs++
          total.ms += Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6
          totals.set(name, total)
        }
        target.destroy()
      }
      return [...totals].map(([name, total]) => ({ name, ...total })).sort((a, b) => b.ms - a.ms)
    },
  }
}
