/** Exact k-means and palettes of all of SmolLM2, against coremltools. */

import { mkdtempSync } from 'node:fs'
import path from 'node:path'
import { seededRandom, type Tensor } from '@lowbit/core'
import { type CpuKernels, cpu } from '@lowbit/kernels-cpu'
import { palettize } from '@lowbit/palettize'
import { cpuSeconds, timed, type Usage } from '../measure.ts'
import { firstLine } from '../peers.ts'
import { runPython } from '../python.ts'
import { againstPeer, type Row, runs } from '../report.ts'
import { type Settings, smollm2Folder } from '../settings.ts'
import { dense, linearNames, openSmollm2 } from '../smollm2/linears.ts'

type Options = NonNullable<Parameters<typeof palettize>[0]>

const grouped = { bits: 3, granularity: 'per-grouped-channel', groupSize: 16 } as const
const ONE = 'model.layers.15.mlp.down_proj'

/** What both do; `told` is what coremltools 9 took on 2 shared cores with AVX-512, in another session. */
const WORK: readonly {
  readonly what: string
  readonly options: Options
  readonly theirs: string
  /** Of how much coremltools measured one. */
  readonly times?: number
  readonly told: number
}[] = [
  {
    what: 'palettes of SmolLM2, 4 bits',
    ...{ options: { bits: 4, importance: 'none' }, theirs: '4 bits', told: 23 },
  },
  {
    what: 'palettes of SmolLM2, 3 bits, 16 rows each',
    ...{ options: { ...grouped, importance: 'none' }, theirs: '3 bits', told: 109 },
  },
  {
    what: 'the same, sensitive, gradients given',
    options: { ...grouped, mode: 'sensitive' },
    // One block of thirty: random gradients make no difference to the time.
    ...{ theirs: 'sensitive, a block', times: 30, told: 500 },
  },
]

export async function palettes(settings: Settings): Promise<Row[]> {
  const kernels = await cpu({ threads: settings.threads, wide: true })
  const checkpoint = await openSmollm2(settings)
  const rows: Row[] = []
  try {
    const found = peer(settings)
    const theirs = (name: string, told: number, times = 1) => {
      const seconds = typeof found === 'string' ? undefined : found.get(name)
      return againstPeer('coremltools', seconds && seconds * times, told, `${found}`)
    }
    const matrix = dense(kernels, await checkpoint.readMatrix(ONE))
    const ours = await exact(kernels, matrix, settings)
    kernels.free(matrix)
    rows.push(...runs('16 exact centroids of 576 × 1536', ours, theirs('exact', 0.09)))
    for (const { what, options, theirs: name, told, times } of WORK) {
      const usage = await wholeModel(kernels, checkpoint, options)
      rows.push(...runs(what, usage, theirs(name, told, times)))
      console.error(`  ${what}: ${usage.cpu.toFixed(2)} CPU s`)
    }
  } finally {
    await checkpoint.close()
    kernels.dispose()
  }
  return rows
}

/** The median round. */
async function exact(kernels: CpuKernels, weight: Tensor, { rounds }: Settings): Promise<Usage> {
  const quantizer = palettize({ bits: 4, importance: 'none' })
  const seen: Usage[] = []
  for (let round = 0; round <= rounds; round++) {
    seen.push(await timed(() => quantizer.quantize({ name: ONE, weight, kernels, seed: 0 })))
  }
  const sorted = seen.slice(1).sort((a, b) => a.cpu - b.cpu)
  return sorted[sorted.length >> 1]
}

/** The quantizer alone, over all linears; what a sensitive one is given is random. */
async function wholeModel(
  kernels: CpuKernels,
  checkpoint: Awaited<ReturnType<typeof openSmollm2>>,
  options: Options,
): Promise<Usage> {
  const quantizer = palettize(options)
  const random = seededRandom(1)
  let [cpu, wall] = [0, 0]
  for (const name of linearNames(checkpoint, kernels)) {
    const weight = dense(kernels, await checkpoint.readMatrix(name))
    const squares = quantizer.needs.fisher
      ? new Float32Array(weight.rows * weight.columns).map(() => random() ** 4)
      : undefined
    const fisher = squares && kernels.upload(squares, weight.rows, weight.columns)
    const [usedBefore, before] = [cpuSeconds(), performance.now()]
    await quantizer.quantize({ name, weight, fisher, kernels, seed: 0 })
    cpu += cpuSeconds() - usedBefore
    wall += (performance.now() - before) / 1000
    kernels.free(weight, ...(fisher ? [fisher] : []))
  }
  return { cpu, wall }
}

function peer(settings: Settings): ReadonlyMap<string, number> | string {
  try {
    const room = mkdtempSync(path.join(settings.work, 'palettes-'))
    return runPython(settings, 'palettes.py', [path.join(smollm2Folder(settings), 'hf'), room])
  } catch (error) {
    return firstLine(error)
  }
}
