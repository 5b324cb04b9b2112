import { createHash } from 'node:crypto'
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import {
  decode,
  equalMatrices,
  isQuantized,
  type Kernels,
  type QuantizerPlugin,
} from '@lowbit/core'
import { FORMATS, type Folder, openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { calibrationWindows, loadDecoder, loadTokenizer, perplexity } from '@lowbit/model'
import { gptq } from '@lowbit/quantizer-gptq'
import { rtn } from '@lowbit/quantizer-rtn'
import { demoFolder, readDemoText } from '@lowbit/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseRecipe, type RecipeInput } from '../recipe/recipe.ts'
import { convertModel } from './convert-model.ts'
import type { QuantizeJob } from './job.ts'
import { quantizeModel } from './quantize-model.ts'
import type { QuantizeReport } from './report.ts'

const plugins: QuantizerPlugin[] = [rtn, gptq]
let kernels: Kernels
let place: string
let windows: number[][]
let evaluation: number[]
let made = 0

beforeAll(async () => {
  kernels = await cpu({ threads: 2 })
  place = await mkdtemp(path.join(tmpdir(), 'lowbit-pipeline-'))
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  const tokenizer = await loadTokenizer(checkpoint)
  windows = calibrationWindows(
    tokenizer.encode((await readDemoText('calibration')).slice(0, 20_000)),
    8,
    256,
  )
  evaluation = tokenizer.encode((await readDemoText('evaluation')).slice(0, 30_000))
  await checkpoint.close()
})
afterAll(async () => {
  kernels.dispose()
  await rm(place, { recursive: true, force: true })
})

const fresh = (): string => path.join(place, `out-${made++}`)

async function quantize(
  recipe: RecipeInput,
  out: string,
  rest: Partial<QuantizeJob> = {},
): Promise<QuantizeReport> {
  const parsed = parseRecipe(recipe)
  const checkpoint = rest.checkpoint ?? (await openFolder(nodeFolder(demoFolder())))
  try {
    return await quantizeModel({
      checkpoint,
      kernels,
      recipe: parsed,
      quantizers: plugins,
      format: FORMATS.find(({ name }) => name === parsed.format)!,
      calibration: windows,
      folder: nodeFolder(out),
      ...rest,
    })
  } finally {
    await checkpoint.close()
  }
}

async function score(folder: string): Promise<number> {
  const checkpoint = await openFolder(nodeFolder(folder))
  const decoder = await loadDecoder(checkpoint, kernels)
  const { perplexity: value } = await perplexity(decoder, evaluation, { context: 256, windows: 8 })
  decoder.dispose()
  await checkpoint.close()
  return value
}

/** KL of the original from a quantized folder, in nats. */
async function divergence(folder: string): Promise<number> {
  const decoders = []
  for (const place of [folder, demoFolder()]) {
    const checkpoint = await openFolder(nodeFolder(place))
    decoders.push(await loadDecoder(checkpoint, kernels))
    await checkpoint.close()
  }
  const [decoder, reference] = decoders
  const { kl } = await perplexity(decoder, evaluation, { context: 256, windows: 8, reference })
  for (const each of decoders) each.dispose()
  return kl ?? Number.NaN
}

const hash = async (file: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(file))
    .digest('hex')

it('orders as it should: f16 < gptq < rtn at 3 bits, and more bits are better', async () => {
  const [three, four, rounded] = [fresh(), fresh(), fresh()]
  const rules = (method: string, bits: number) => ({ rules: [{ method, bits }] })
  const report = await quantize(rules('gptq', 3), three)
  await quantize(rules('gptq', 4), four)
  await quantize(rules('rtn', 3), rounded)
  // Divergence from the original tells small differences apart better than perplexity on few windows.
  const lost = [await divergence(four), await divergence(three), await divergence(rounded)]
  expect(lost).toEqual(lost.toSorted((a, b) => a - b))
  expect(lost[0]).toBeGreaterThan(0)
  // 3 bits, f16 scale and 3-bit zero for each 128: all the demo's widths divide by it.
  expect(report.bitsPerWeight).toBeCloseTo(3 + 19 / 128, 6)
  expect(report.modules).toHaveLength(6 * 7)
  expect(report.calibrationTokens).toBe(8 * 256)
  expect(kernels.bytes).toBe(0)
})

describe('formats', () => {
  it('the same recipe decodes to the same weights in every layout that can hold it', async () => {
    const recipe = { rules: [{ method: 'rtn', bits: 4, groupSize: 64, symmetric: true }] }
    const outs = []
    for (const format of ['lowbit', 'gptq', 'gptq_v2']) {
      outs.push(fresh())
      await quantize({ ...recipe, format }, outs.at(-1)!)
    }
    const [first, ...others] = await Promise.all(outs.map((out) => openFolder(nodeFolder(out))))
    for (const module of first.modules) {
      const expected = await first.readMatrix(module)
      for (const other of others) {
        const matrix = await other.readMatrix(module)
        if (isQuantized(expected) && isQuantized(matrix)) {
          expect(decode(matrix)).toEqual(decode(expected))
        } else {
          expect(matrix).toEqual(expected)
        }
      }
    }
    expect(others[0].format).toBe('gptq')
    expect(others[0].config.quantization_config).toMatchObject({
      bits: 4,
      group_size: 64,
      sym: true,
    })
  })

  it('a layout that can not hold a matrix says so by its name and leaves the way out', async () => {
    const recipe = { rules: [{ method: 'rtn', grid: 'nf4' }], format: 'gptq' }
    await expect(quantize(recipe, fresh())).rejects.toThrow(
      /format gptq can not store model.layers.0.self_attn.q_proj: GPTQ stores integers only; --format lowbit can/,
    )
  })

  it('converts there and back without a change', async () => {
    const [out, converted, back] = [fresh(), fresh(), fresh()]
    await quantize({ rules: [{ method: 'gptq', bits: 3, groupSize: 32 }] }, out)
    const convert = async (from: string, name: string, to: string) => {
      const checkpoint = await openFolder(nodeFolder(from))
      const format = FORMATS.find((f) => f.name === name)!
      await convertModel({ checkpoint, format, folder: nodeFolder(to), denseType: 'f16' })
      await checkpoint.close()
    }
    await convert(out, 'gptq_v2', converted)
    await convert(converted, 'lowbit', back)
    const [a, b] = [await openFolder(nodeFolder(out)), await openFolder(nodeFolder(back))]
    for (const module of a.modules) {
      const [x, y] = [await a.readMatrix(module), await b.readMatrix(module)]
      if (isQuantized(x) && isQuantized(y)) expect(equalMatrices(x, y), module).toBe(true)
    }
  })

  it('shards with an index when a file would be too large', async () => {
    const out = fresh()
    await quantize({ rules: [{ method: 'rtn', bits: 2 }] }, out, { maxShardBytes: 500_000 })
    const files = await readdir(out)
    expect(
      files.filter((name) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name)).length,
    ).toBeGreaterThan(2)
    expect(files).toContain('model.safetensors.index.json')
    expect(Number.isFinite(await score(out))).toBe(true)
  })

  it('everything that travels is there, and nothing of the work', async () => {
    const out = fresh()
    await quantize({ rules: [{ method: 'rtn' }] }, out)
    expect((await readdir(out)).sort()).toEqual([
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'quantization-report.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ])
  })

  it('embedding and head can have rules of their own', async () => {
    const out = fresh()
    const report = await quantize(
      {
        rules: [
          { match: 'model.embed_tokens', method: 'rtn', bits: 8, groupSize: 32 },
          { method: 'rtn' },
        ],
      },
      out,
    )
    expect(report.modules.at(-1)).toMatchObject({ module: 'model.embed_tokens', bits: 8 + 24 / 32 })
    expect(await score(out)).toBeLessThan((await score(demoFolder())) * 1.1)
  })
})

describe('going on after a stop', () => {
  const recipe = { rules: [{ method: 'gptq', bits: 3, groupSize: 64 }] }

  it('ends with the same bytes, wherever it was stopped', async () => {
    const whole = fresh()
    await quantize(recipe, whole)
    const expected = await hash(path.join(whole, 'model.safetensors'))
    for (const stopAt of [1, 24, 41]) {
      const out = fresh()
      const controller = new AbortController()
      let seen = 0
      const stopped = quantize(recipe, out, {
        signal: controller.signal,
        onEvent: (event) => {
          if (event.kind === 'module' && ++seen === stopAt) controller.abort(new Error('stopped'))
        },
      })
      await expect(stopped).rejects.toThrow('stopped')
      expect(await readdir(out).catch(() => [])).not.toContain('config.json')
      await quantize(recipe, out)
      expect(await hash(path.join(out, 'model.safetensors'))).toBe(expected)
    }
  })

  it('the number of threads does not change a byte', async () => {
    const [two, one] = [fresh(), fresh()]
    await quantize(recipe, two)
    const single = await cpu({ threads: 1 })
    await quantize(recipe, one, { kernels: single })
    single.dispose()
    expect(await hash(path.join(one, 'model.safetensors'))).toBe(
      await hash(path.join(two, 'model.safetensors')),
    )
  })

  it('keeping fewer activations or none changes nothing but the time', async () => {
    const streams = windows.length * windows[0].length * 256 * 4
    const made: string[] = []
    for (const keptBytes of [undefined, streams + 300_000, 0]) {
      const out = fresh()
      await quantize(recipe, out, { keptBytes })
      made.push(await hash(path.join(out, 'model.safetensors')))
    }
    expect(new Set(made).size).toBe(1)
  })

  it('refuses to go on with the parts of another job', async () => {
    const out = fresh()
    const controller = new AbortController()
    const onEvent: QuantizeJob['onEvent'] = (event) => {
      if (event.kind === 'part') controller.abort(new Error('stopped'))
    }
    await expect(quantize(recipe, out, { signal: controller.signal, onEvent })).rejects.toThrow(
      'stopped',
    )
    await expect(quantize({ ...recipe, seed: 1 }, out)).rejects.toThrow(
      /other options.*--overwrite/,
    )
    await quantize({ ...recipe, seed: 1 }, out, { restart: true })
  })

  it('a full disk leaves the finished parts for the next run', async () => {
    const out = fresh()
    const inner = nodeFolder(out)
    const full: Folder = {
      ...inner,
      async write(name, parts, signal) {
        if (name.startsWith('block-00002'))
          throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' })
        await inner.write(name, parts, signal)
      },
    }
    await expect(quantize(recipe, out, { folder: full })).rejects.toThrow('ENOSPC')
    expect(await readdir(out)).toContain('block-00001.part.safetensors')
    expect(await readdir(out)).not.toContain('model.safetensors')
    await quantize(recipe, out)
    expect(Number.isFinite(await score(out))).toBe(true)
  })
})

describe('models that are broken', () => {
  /** A copy of the demo with one tensor's bytes overwritten. */
  async function damaged(tensor: string, bytes: Uint8Array): Promise<string> {
    const copy = fresh()
    await cp(demoFolder(), copy, { recursive: true })
    const file = path.join(copy, 'model.safetensors')
    const data = await readFile(file)
    const length = Number(data.readBigUInt64LE(0))
    const header = JSON.parse(data.subarray(8, 8 + length).toString())
    data.set(bytes, 8 + length + header[tensor].data_offsets[0])
    await writeFile(file, data)
    return copy
  }

  it.each([
    ['NaN', Uint8Array.of(0x00, 0x7e)],
    ['infinity', Uint8Array.of(0x00, 0x7c)],
  ])('a weight of %s is refused by name', async (_, bytes) => {
    const tensor = 'model.layers.3.mlp.up_proj.weight'
    for (const method of ['rtn', 'gptq']) {
      const checkpoint = await openFolder(nodeFolder(await damaged(tensor, bytes)))
      await expect(quantize({ rules: [{ method }] }, fresh(), { checkpoint })).rejects.toThrow(
        /model.layers.3.mlp.up_proj/,
      )
    }
  })

  it('a truncated file is refused when it is opened', async () => {
    const copy = fresh()
    await cp(demoFolder(), copy, { recursive: true })
    const file = path.join(copy, 'model.safetensors')
    await writeFile(file, (await readFile(file)).subarray(0, 5_000_000))
    await expect(openFolder(nodeFolder(copy))).rejects.toThrow(/model.safetensors/)
  })

  it('config.json and weights that contradict each other are refused by name', async () => {
    const copy = fresh()
    await cp(demoFolder(), copy, { recursive: true })
    const file = path.join(copy, 'config.json')
    const config = JSON.parse(await readFile(file, 'utf8'))
    await writeFile(file, JSON.stringify({ ...config, intermediate_size: 512 }))
    const checkpoint = await openFolder(nodeFolder(copy))
    await expect(quantize({ rules: [{ method: 'rtn' }] }, fresh(), { checkpoint })).rejects.toThrow(
      /768 × 256.*512 × 256.*model.layers.0.mlp/,
    )
    await writeFile(file, JSON.stringify({ ...config, num_hidden_layers: 7 }))
    const longer = await openFolder(nodeFolder(copy))
    await expect(
      quantize({ rules: [{ method: 'rtn' }] }, fresh(), { checkpoint: longer }),
    ).rejects.toThrow(/lacks a weight.*model.layers.6.self_attn.q_proj/)
  })

  it('three tokens of calibration are enough to run on, none is an error', async () => {
    const out = fresh()
    await quantize({ rules: [{ method: 'gptq', bits: 4 }] }, out, { calibration: [[1, 2, 3]] })
    expect(await score(out)).toBeLessThan(200)
    await expect(
      quantize({ rules: [{ method: 'gptq' }] }, fresh(), { calibration: [] }),
    ).rejects.toThrow(/--calibration/)
    await expect(
      quantize({ rules: [{ method: 'gptq' }] }, fresh(), { calibration: [new Array(600).fill(1)] }),
    ).rejects.toThrow(/600 tokens.*512/)
  })

  it('calibrated methods outside the blocks are refused', async () => {
    await expect(
      quantize({ rules: [{ match: 'model.embed_tokens', method: 'gptq' }] }, fresh()),
    ).rejects.toThrow(/use rtn for model.embed_tokens/)
  })
})
