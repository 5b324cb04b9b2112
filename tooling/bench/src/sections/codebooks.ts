/** Generation and a prompt with codebooks and palettes in all of SmolLM2, against the same model in f16. */

import { existsSync } from 'node:fs'
import path from 'node:path'
import type { Quantizer } from '@lowbit/core'
import { FORMATS } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { type CpuKernels, cpu } from '@lowbit/kernels-cpu'
import { palettize } from '@lowbit/palettize'
import { convertModel } from '@lowbit/pipeline'
import { gptvq } from '@lowbit/quantizer-gptvq'
import { vptq } from '@lowbit/quantizer-vptq'
import { compare, type Row } from '../report.ts'
import type { Task } from '../runners/protocol.ts'
import { LONG_PROMPT, NEW_TOKENS, SHORT_PROMPT } from '../runners/protocol.ts'
import { type Running, startRunner } from '../runners/start.ts'
import { type Settings, smollm2Folder } from '../settings.ts'
import { dense, linearNames, openSmollm2 } from '../smollm2/linears.ts'
import { inTurn } from './run.ts'

const grouped = { granularity: 'per-grouped-channel', groupSize: 16 } as const

/** Made in a hurry and without calibration: what runs fast depends on the form alone. */
const MADE: readonly { readonly name: string; readonly quantizer: Quantizer }[] = [
  {
    name: 'VPTQ, 256 + 256 × 8',
    quantizer: vptq({
      ...{ vectorLength: 8, centroids: 256, residualCentroids: 256, tables: 'matrix' },
      ...{ iterations: 1, sweeps: 0, refits: 0, rotation: 'none' },
    }),
  },
  {
    name: 'GPTVQ, 2.25 bits',
    quantizer: gptvq({ bitsPerValue: 2.25, iterations: 1, updates: 0 }),
  },
  {
    name: 'palettes, 3 bits, 16 rows each',
    quantizer: palettize({ bits: 3, ...grouped, importance: 'none' }),
  },
  { name: 'palettes, 4 bits', quantizer: palettize({ bits: 4, importance: 'none' }) },
]

export async function codebooks(settings: Settings): Promise<Row[]> {
  const kernels = await cpu({ threads: settings.threads, wide: true })
  const folders = new Map([['f16', path.join(smollm2Folder(settings), 'hf')]])
  for (const { name, quantizer } of MADE) {
    folders.set(name, await make(settings, kernels, name, quantizer))
  }
  kernels.dispose()
  const running: Running[] = []
  const rows: Row[] = []
  try {
    for (const [name, model] of folders) {
      running.push(await startRunner(name, 'lowbit', { model, threads: settings.threads }))
    }
    const tasks: readonly [Task, string][] = [
      ['decode', `SmolLM2, ${SHORT_PROMPT} → ${NEW_TOKENS} tokens`],
      ['prompt', `SmolLM2, prompt of ${LONG_PROMPT}`],
    ]
    for (const [task, title] of tasks) {
      const { figures, failed } = await inTurn(running, task, settings.quick ? 2 : settings.rounds)
      const against = compare(title, 'tokens', figures, 'f16')
      rows.push(
        ...against.map(({ ratio, ...row }) => ({
          ...row,
          ...(ratio && { note: `${(1 / ratio).toFixed(2)}× f16` }),
        })),
        ...failed.map((row) => ({ ...row, what: title })),
      )
    }
  } finally {
    await Promise.all(running.map((runner) => runner.close().catch(() => {})))
  }
  return rows
}

async function make(
  settings: Settings,
  kernels: CpuKernels,
  name: string,
  quantizer: Quantizer,
): Promise<string> {
  const folder = path.join(settings.work, `smollm2-${name.replaceAll(/\W+/g, '-').toLowerCase()}`)
  if (existsSync(path.join(folder, 'config.json'))) return folder
  const checkpoint = await openSmollm2(settings)
  const linears = new Set(linearNames(checkpoint, kernels))
  await convertModel({
    checkpoint: {
      ...checkpoint,
      async readMatrix(module) {
        const matrix = await checkpoint.readMatrix(module)
        if (!linears.has(module)) return matrix
        const weight = dense(kernels, matrix)
        const size = weight.columns
        const unit = new Float32Array(size * size)
        for (let i = 0; i < size; i++) unit[i * size + i] = 1
        const hessian = kernels.upload(unit, size, size)
        const made = await quantizer.quantize({ name: module, weight, hessian, kernels, seed: 0 })
        kernels.free(weight, hessian)
        return made
      },
    },
    denseType: 'f16',
    format: FORMATS.find(({ name }) => name === 'lowbit')!,
    folder: nodeFolder(folder),
  })
  await checkpoint.close()
  return folder
}
