/** The page of the bench: the same codes, multiplied by lowbit and by onnxruntime-web on the same adapter, in turn. */

import { packCodes, perGroup, signedGrid, type Weight } from '@lowbit/core'
import { type WebGpuKernels, webgpu } from '@lowbit/kernels-webgpu'
import './generation.ts'

export interface Case {
  readonly rows: number
  readonly columns: number
  readonly group: number
  /** Rows of x. */
  readonly batch: number
  /** Different matrices that one call multiplies. */
  readonly copies: number
}

export interface Speed {
  readonly name: string
  /** Median seconds of one call. */
  readonly seconds: number
  /** Largest difference from lowbit's first result, as a share of its largest number. */
  readonly difference: number
}

export interface Comparison {
  readonly adapter: string
  readonly features: readonly string[]
  readonly variants: readonly string[]
  readonly speeds: readonly Speed[]
  /** Contestants that could not run, and why. */
  readonly skipped: readonly string[]
}

/** As much of onnxruntime-web as is called here. */
interface Ort {
  readonly env: { wasm: { wasmPaths: string; numThreads: number } }
  readonly Tensor: new (type: 'float32', data: Float32Array, shape: readonly number[]) => unknown
  readonly InferenceSession: {
    create(
      url: string,
      options: object,
    ): Promise<{
      run(feeds: object): Promise<Readonly<Record<string, { getData(): Promise<Float32Array> }>>>
      release(): Promise<void>
    }>
  }
}

interface Contestant {
  readonly name: string
  /** Calls so many times, waits for the last, and gives its result. */
  run(times: number): Promise<Float32Array>
}

declare global {
  interface Window {
    compare(what: Case, levels: readonly number[], rounds: number): Promise<Comparison>
  }
}

window.compare = async (what, levels, rounds) => {
  const kernels = await webgpu()
  const { columns, batch } = what
  const x = await load('x', Float32Array)
  const ours = await lowbit(kernels, what, x)
  const contestants: Contestant[] = [ours]
  const skipped: string[] = []
  for (const level of levels) {
    try {
      const theirs = await onnx(`level-${level}.onnx`, level, x.slice(0, batch * columns), what)
      await theirs.run(1)
      contestants.push(theirs)
    } catch (error) {
      skipped.push(`onnxruntime-web, level ${level}: ${String(error).split('\n')[0]}`)
    }
  }
  const first = await ours.run(1)
  const largest = first.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  const seen: number[][] = contestants.map(() => [])
  const differences = contestants.map(() => 0)
  const times: number[] = []
  for (const contestant of contestants) times.push(await timesFor(contestant))
  for (let round = 0; round < rounds; round++) {
    for (const [i, contestant] of contestants.entries()) {
      const started = performance.now()
      const out = await contestant.run(times[i])
      seen[i].push((performance.now() - started) / 1000 / times[i])
      for (let n = 0; n < out.length; n++) {
        differences[i] = Math.max(differences[i], Math.abs(out[n] - first[n]) / largest)
      }
    }
  }
  const { adapter, features } = kernels
  const speeds = contestants.map(({ name }, i) => ({
    ...{ name, seconds: median(seen[i]), difference: differences[i] },
  }))
  kernels.dispose()
  return { adapter, features, variants: ours.variants, speeds, skipped }
}

/** Calls that take about a third of a second. */
async function timesFor({ run }: Contestant): Promise<number> {
  for (let times = 1; ; times *= 2) {
    const started = performance.now()
    await run(times)
    if (performance.now() - started > 300 || times >= 4096) return times
  }
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1]

async function load<T>(name: string, View: new (buffer: ArrayBuffer) => T): Promise<T> {
  return new View(await (await fetch(`data/${name}`)).arrayBuffer())
}

async function lowbit(
  kernels: WebGpuKernels,
  { rows, columns, group, batch, copies }: Case,
  values: Float32Array,
): Promise<Contestant & { variants: string[] }> {
  const weights: Weight[] = []
  for (let i = 0; i < copies; i++) {
    const [codes, scales] = [
      await load(`codes-${i}`, Uint8Array),
      await load(`scales-${i}`, Float32Array),
    ]
    const plain = Uint8Array.from(
      { length: rows * columns },
      (_, n) => (codes[n >> 1] >> ((n & 1) * 4)) & 15,
    )
    weights.push(
      kernels.load({
        ...{ rows, columns },
        stages: [
          {
            codes: packCodes(plain, 4),
            vector: { length: 1, along: 'in' },
            grid: signedGrid(4),
            scale: { blocks: perGroup(group), values: { type: 'f32', values: scales } },
          },
        ],
      }),
    )
  }
  const x = kernels.upload(values.slice(0, batch * columns), batch, columns)
  const out = kernels.tensor(batch, rows)
  return {
    name: 'lowbit',
    variants: [...new Set(weights.map(({ variant }) => variant))],
    async run(times) {
      for (let i = 0; i < times; i++) {
        for (const [n, weight] of weights.entries()) {
          kernels.matmul(out, x, weight, { accumulate: n > 0 })
        }
      }
      return kernels.read(out)
    },
  }
}

async function onnx(
  file: string,
  level: number,
  values: Float32Array,
  { batch, columns }: Case,
): Promise<Contestant> {
  const address = new URL('ort/ort.webgpu.min.mjs', document.baseURI).href
  const ort = (await import(/* @vite-ignore */ address)) as Ort
  ort.env.wasm.wasmPaths = new URL('ort/', document.baseURI).href
  ort.env.wasm.numThreads = 1
  const session = await ort.InferenceSession.create(`data/${file}`, {
    executionProviders: ['webgpu'],
    preferredOutputLocation: 'gpu-buffer',
  })
  const feeds = { x: new ort.Tensor('float32', values, [batch, columns]) }
  return {
    name: `onnxruntime-web, level ${level}`,
    async run(times) {
      let last: Readonly<Record<string, { getData(): Promise<Float32Array>; dispose?(): void }>> =
        {}
      for (let i = 0; i < times; i++) {
        last.y?.dispose?.()
        last = await session.run(feeds)
      }
      const out = await last.y.getData()
      last.y.dispose?.()
      return out
    },
  }
}
