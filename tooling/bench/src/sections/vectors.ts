/** The nearest of many centroids, against faiss and our own GEMM; a decoder block by VPTQ and by GPTVQ. */

import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { kMeans, type Quantizer, seededRandom } from '@lowbit/core'
import { type CpuKernels, cpu } from '@lowbit/kernels-cpu'
import { gptvq } from '@lowbit/quantizer-gptvq'
import { vptq } from '@lowbit/quantizer-vptq'
import { cpuSeconds, interleave, repeated, type Usage } from '../measure.ts'
import { firstLine } from '../peers.ts'
import { runPython } from '../python.ts'
import { againstPeer, compare, type Row, runs } from '../report.ts'
import type { Settings } from '../settings.ts'
import { dense, firstBlockHessians, linearNames, openSmollm2 } from '../smollm2/linears.ts'

const LENGTH = 8
/** Milliseconds. */
const WARM = 3000
/** 110,592 vectors. */
const MATRIX = 'model.layers.15.mlp.up_proj'
const TABLES = [256, 4096]
/** faiss, an iteration of its k-means, in another session. */
const TOLD: Readonly<Record<number, number>> = { 256: 0.013, 4096: 0.086 }

export async function nearest(settings: Settings): Promise<Row[]> {
  const rows: Row[] = []
  const checkpoint = await openSmollm2(settings)
  const relaxed = await cpu({ threads: settings.threads, strict: false, wide: true })
  const strict = await cpu({ threads: settings.threads, wide: true })
  try {
    const weight = dense(relaxed, await checkpoint.readMatrix(MATRIX))
    const values = await relaxed.read(weight)
    const n = values.length / LENGTH
    const vectors = relaxed.upload(values, n, LENGTH)
    const random = seededRandom(0)
    const tables: Float32Array[] = []
    for (const entries of TABLES) {
      tables.push(await kMeans(relaxed, vectors, { entries, iterations: 5, random }))
    }
    relaxed.free(weight, vectors)
    const found = faiss(settings, values, tables)
    for (const [i, entries] of TABLES.entries()) {
      const what = `nearest of ${entries} × ${LENGTH}, ${n.toLocaleString('en')} vectors`
      const operations = 2 * n * LENGTH * entries
      const contestants = []
      for (const kernels of [relaxed, strict]) {
        const x = kernels.upload(values, n, LENGTH)
        const table = kernels.upload(tables[i], entries, LENGTH)
        const codes = kernels.tensor(n, 1, 'u16')
        const name = kernels.strict ? 'lowbit, strict' : 'lowbit'
        const search = () => kernels.nearest(codes, x, table)
        // The engine compiles this one anew when it has run for a while, beside it, on a core that may be busy.
        const end = performance.now() + WARM
        while (performance.now() < end) {
          search()
          await setTimeout(1)
        }
        contestants.push(await repeated(name, search, 0.3))
        // What the dense product does with as many multiply-adds for a large matrix.
        const [a, b] = [kernels.tensor(1024, 1024), kernels.tensor(1024, 1024)]
        const product = kernels.tensor(1024, 1024)
        const gemm = kernels.strict ? 'its GEMM 1024³, strict' : 'its GEMM 1024³'
        contestants.push(await repeated(gemm, () => kernels.multiply(product, a, b), 0.3))
      }
      const outcomes = await interleave(contestants, settings.rounds)
      const figures = outcomes.map(({ name, wall, cpu }) => {
        const flop = name.includes('GEMM') ? 2 * 1024 ** 3 : operations
        const note = name.includes('GEMM') ? undefined : `${(1000 * cpu).toFixed(1)} CPU ms`
        return { name, perCpuSecond: flop / cpu / 1e9, perSecond: flop / wall / 1e9, note }
      })
      rows.push(...compare(what, 'GFLOP/s', figures, 'lowbit'))
      const seconds = typeof found === 'string' ? undefined : found.get(`${entries}`)
      const peer = againstPeer('faiss', seconds, TOLD[entries], `${found}`)
      const own = outcomes[0].cpu
      rows.push({
        ...{ what, who: peer.who, unit: 'GFLOP/s', perCpuSecond: operations / peer.cpu / 1e9 },
        ratio: peer.cpu / own,
        note: [`${(1000 * peer.cpu).toFixed(1)} CPU ms`, ...(peer.note ? [peer.note] : [])].join(
          '; ',
        ),
      })
    }
  } finally {
    await checkpoint.close()
    relaxed.dispose()
    strict.dispose()
  }
  return rows
}

function faiss(
  settings: Settings,
  vectors: Float32Array,
  tables: readonly Float32Array[],
): ReadonlyMap<string, number> | string {
  try {
    const room = mkdtempSync(path.join(settings.work, 'nearest-'))
    const [x, t] = [path.join(room, 'vectors'), path.join(room, 'tables')]
    writeFileSync(x, vectors)
    writeFileSync(
      t,
      Buffer.concat(tables.map((table) => Buffer.from(new Uint8Array(table.buffer)))),
    )
    return runPython(settings, 'nearest.py', [x, t])
  } catch (error) {
    return firstLine(error)
  }
}

const VPTQ = {
  ...{ vectorLength: 8, centroids: 256, residualCentroids: 256 },
  tables: 'matrix',
} as const

/** What the released programs took for block 0 (CPU s) and lost of its output, in another session. */
const BLOCK: readonly {
  readonly who: string
  readonly what: string
  readonly quantizer: Quantizer
  readonly told: number
  readonly error: number
  readonly log: 'vptqLog' | 'gptvqLog'
}[] = [
  {
    ...{ who: 'VPTQ', what: 'a block by VPTQ, 256 + 256 vectors of 8, quick', log: 'vptqLog' },
    quantizer: vptq({ ...VPTQ, sweeps: 1, refits: 0, iterations: 8 }),
    ...{ told: 6.4, error: 0.0236 },
  },
  {
    ...{ who: 'VPTQ', what: 'the same with every default', log: 'vptqLog' },
    ...{ quantizer: vptq(VPTQ), told: 6.4, error: 0.0236 },
  },
  {
    ...{ who: 'GPTVQ', what: 'a block by GPTVQ, 2-D, 2.24 bits', log: 'gptvqLog' },
    quantizer: gptvq({
      ...{ bitsPerValue: 2.24, vectorLength: 2, centroids: 16 },
      ...{ groupSize: 1152, groupColumns: 192 },
    }),
    ...{ told: 13.7, error: 0.0211 },
  },
]

/** Block 0 with the Hessians of the float model, by the quantizers alone. */
export async function blocks(settings: Settings): Promise<Row[]> {
  const rows: Row[] = []
  const kernels = await cpu({ threads: settings.threads, wide: true })
  const checkpoint = await openSmollm2(settings)
  try {
    const hessians = await firstBlockHessians(settings, checkpoint, kernels)
    for (const { who, what, quantizer, told, error, log } of BLOCK) {
      const theirs = fromLog(settings[log], who.toLowerCase())
      const { usage, lost } = await quantizeBlock(kernels, checkpoint, quantizer, hessians)
      const peer = againstPeer(who, theirs?.cpu, told, `no --${who.toLowerCase()}-log`)
      const note = `output error ${(theirs?.error ?? error).toFixed(4)}`
      const full = { ...peer, note: peer.note ? `${note}; ${peer.note}` : note }
      rows.push(...runs(what, usage, full, `output error ${lost.toFixed(4)}`))
    }
  } finally {
    await checkpoint.close()
    kernels.dispose()
  }
  return rows
}

async function quantizeBlock(
  kernels: CpuKernels,
  checkpoint: Awaited<ReturnType<typeof openSmollm2>>,
  quantizer: Quantizer,
  hessians: Awaited<ReturnType<typeof firstBlockHessians>>,
): Promise<{ usage: Usage; lost: number }> {
  let [cpu, wall, lost, power] = [0, 0, 0, 0]
  for (const name of linearNames(checkpoint, kernels, 1)) {
    const weight = dense(kernels, await checkpoint.readMatrix(name))
    const working = kernels.tensor(weight.rows, weight.columns)
    kernels.copy(working, weight)
    const hessian = hessians.get(name)!
    const [usedBefore, before] = [cpuSeconds(), performance.now()]
    const matrix = await quantizer.quantize({ name, weight: working, hessian, kernels, seed: 0 })
    cpu += cpuSeconds() - usedBefore
    wall += (performance.now() - before) / 1000
    const decoded = dense(kernels, matrix)
    lost += await kernels.distance(weight, decoded, hessian)
    power += await kernels.distance(weight, undefined, hessian)
    kernels.free(weight, working, decoded)
  }
  return { usage: { cpu, wall }, lost: lost / power }
}

/** What drivers of the released programs print: lines of JSON, one with block0 (CPU s) and rel_out_err. */
function fromLog(
  file: string | undefined,
  tool: string,
): { cpu: number; error: number } | undefined {
  if (!file) return undefined
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    if (!line.startsWith('{') || !line.includes(`"tool": "${tool}"`)) continue
    const { block0, rel_out_err } = JSON.parse(line) as { block0: number; rel_out_err: number }
    return { cpu: block0, error: rel_out_err }
  }
  throw new Error(`${file} has no line of ${tool}`)
}
