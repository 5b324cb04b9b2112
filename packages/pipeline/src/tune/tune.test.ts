import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { definePlugin, type Kernels } from '@lowbit/core'
import { FORMATS, openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { calibrationWindows, loadDecoder, loadTokenizer, perplexity } from '@lowbit/model'
import { vptq } from '@lowbit/quantizer-vptq'
import { demoFolder, readDemoText } from '@lowbit/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import * as z from 'zod'
import type { QuantizeJob } from '../job/job.ts'
import { quantizeModel } from '../job/quantize-model.ts'
import { parseRecipe, type RecipeInput } from '../recipe/recipe.ts'
import { adam, factors, rateAt } from './adam.ts'
import type { ModelTuner } from './end-to-end.ts'

let kernels: Kernels
let place: string
let windows: number[][]
let tokens: number[]

beforeAll(async () => {
  kernels = await cpu({ threads: 2 })
  place = await mkdtemp(path.join(tmpdir(), 'lowbit-tune-'))
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  const tokenizer = await loadTokenizer(checkpoint)
  tokens = tokenizer.encode((await readDemoText('calibration')).slice(0, 8_000))
  windows = calibrationWindows(tokens, 4, 128)
  await checkpoint.close()
})
afterAll(async () => {
  kernels.dispose()
  await rm(place, { recursive: true, force: true })
})

const rough = { method: 'vptq', vectorLength: 8, centroids: 64, sweeps: 0, refits: 0 }
const recipe = (tune?: RecipeInput['tune']): RecipeInput => ({
  rules: [rough],
  calibration: { target: 'layer' },
  ...(tune && { tune }),
})

async function run(name: string, given: RecipeInput, rest: Partial<QuantizeJob> = {}) {
  const folder = path.join(place, name)
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  try {
    await quantizeModel({
      ...{ checkpoint, kernels, recipe: parseRecipe(given), quantizers: [vptq] },
      ...{ format: FORMATS.find((one) => one.name === 'lowbit')!, calibration: windows },
      ...{ folder: nodeFolder(folder), ...rest },
    })
  } finally {
    await checkpoint.close()
  }
  return folder
}

/** KL from the original on the text that was learned from. */
async function divergence(folder: string): Promise<number> {
  const [original, quantized] = await Promise.all(
    [demoFolder(), folder].map(async (one) =>
      loadDecoder(await openFolder(nodeFolder(one)), kernels),
    ),
  )
  const { kl } = await perplexity(quantized, tokens, {
    ...{ context: 128, windows: 4, reference: original },
  })
  original.dispose()
  quantized.dispose()
  return kl!
}

const digest = async (folder: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(path.join(folder, 'model.safetensors')))
    .digest('hex')

const tune = { steps: 12, rate: 0.01, length: 128 }

it('comes nearer to the original on the text that it learns from', async () => {
  const plain = await divergence(await run('plain', recipe()))
  const tuned = await divergence(await run('tuned', recipe(tune)))
  expect(tuned).toBeLessThan(plain * 0.9)
})

it('stopped while tuning or while its result is put in place, the same job ends with the same bytes', async () => {
  for (const stopAfter of [1, 12]) {
    const stop = new AbortController()
    let steps = 0
    const name = `stopped-${stopAfter}`
    const onEvent: QuantizeJob['onEvent'] = (event) => {
      if (event.kind !== 'step' || event.part !== 'tuning') return
      if (++steps === stopAfter) stop.abort(new Error('stop here'))
    }
    const stopped = run(name, recipe(tune), { signal: stop.signal, onEvent })
    await expect(stopped).rejects.toThrow('stop here')
    const again = await run(name, recipe(tune))
    expect(await digest(again)).toBe(await digest(path.join(place, 'tuned')))
  }
})

it('needs a method that is calibrated', async () => {
  await expect(run('none', recipe(tune), { calibration: [] })).rejects.toThrow(/calibration/)
})

it('a tuner is a plugin: its options are checked, another may take its place', async () => {
  await expect(run('none', recipe({ method: 'nowhere' }))).rejects.toThrow(/end-to-end/)
  await expect(run('none', recipe({ steps: 0 }))).rejects.toThrow(/steps/)
  const still = definePlugin(
    { name: 'still', summary: 'moves nothing', options: z.object({}) },
    (options): ModelTuner => ({
      ...{ kind: 'tuner', name: 'still', label: 'still', options },
      tune: async () => ({ scales: new Map(), tables: new Map(), vectors: new Map() }),
    }),
  )
  const plain = await digest(await run('untouched', recipe()))
  const same = await run('still', recipe({ method: 'still' }), { tuners: [still] })
  expect(await digest(same)).toBe(plain)
})

it('Adam steps against the gradient by the rate, within bounds', () => {
  const f = factors(2)
  adam(f, [3, -0.001], 1, 0.01)
  expect([...f.values]).toEqual([Math.fround(0.99), Math.fround(1.01)])
  for (let step = 2; step < 2000; step++) adam(f, [1, -1], step, 0.01)
  expect([...f.values]).toEqual([0.25, 4])
})

it('the rate rises over the first tenth and falls to almost nothing', () => {
  const rates = Array.from({ length: 20 }, (_, i) => rateAt(i + 1, 20, 1))
  expect(rates[0]).toBe(0.5)
  expect(Math.max(...rates)).toBe(1)
  expect(rates[19]).toBeLessThan(0.05)
})
