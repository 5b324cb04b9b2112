import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import {
  type Checkpoint,
  definePlugin,
  type Kernels,
  type Matrix,
  type Quantizer,
} from '@lowbit/core'
import { FORMATS, type Folder, openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { loadDecoder, perplexity } from '@lowbit/model'
import { rtn } from '@lowbit/quantizer-rtn'
import { demoFolder, denseValues } from '@lowbit/testing'
import { afterAll, beforeAll, expect, it } from 'vitest'
import * as z from 'zod'
import { parseRecipe } from '../recipe/recipe.ts'
import type { QuantizeJob } from './job.ts'
import { quantizeModel } from './quantize-model.ts'

let kernels: Kernels
let place: string
let demo: Checkpoint
let made = 0
/** What the quantizer below was given, by module. */
let given = new Map<string, Float32Array>()

const spy = definePlugin(
  { name: 'spy', summary: 'keeps what it is given', options: z.object({}) },
  (): Quantizer => {
    const rounding = rtn({ bits: 8 })
    return {
      ...{ kind: 'quantizer', name: 'spy', options: {}, label: 'spy', needs: { fisher: true } },
      async quantize(input) {
        given.set(input.name, await input.kernels.read(input.fisher!))
        return rounding.quantize(input)
      },
    }
  },
)

beforeAll(async () => {
  kernels = await cpu({ threads: 2 })
  place = await mkdtemp(path.join(tmpdir(), 'lowbit-fisher-'))
  demo = await openFolder(nodeFolder(demoFolder()))
})
afterAll(async () => {
  await demo.close()
  kernels.dispose()
  await rm(place, { recursive: true, force: true })
})

const fresh = (): string => path.join(place, `out-${made++}`)

/** Two samples, one of them cut off a longer window. */
const long = Array.from({ length: 512 + 6 }, (_, i) => (i * 677 + 13) % 2048)
const windows = [long.slice(-6), [5, 100, 2000, 7, 300]]

async function quantize(
  out: string,
  rest: Partial<QuantizeJob> = {},
  match: string | undefined = undefined,
): Promise<void> {
  given = new Map()
  await quantizeModel({
    checkpoint: demo,
    kernels,
    recipe: parseRecipe({ rules: [{ method: 'spy', ...(match && { match }) }] }),
    quantizers: [spy],
    format: FORMATS.find(({ name }) => name === 'lowbit')!,
    calibration: windows,
    folder: nodeFolder(out),
    ...rest,
  })
  expect(kernels.bytes).toBe(0)
}

/** The demo with one weight moved, or whatever else `change` makes of a module. */
function changed(change: (module: string, matrix: Matrix) => Matrix): Checkpoint {
  return {
    ...demo,
    readMatrix: async (module) => change(module, await demo.readMatrix(module)),
  }
}

/** Σ −log p of the next tokens of one sequence. */
async function lossOf(checkpoint: Checkpoint, tokens: readonly number[]): Promise<number> {
  const decoder = await loadDecoder(checkpoint, kernels)
  const { perplexity: value } = await perplexity(decoder, tokens, { context: tokens.length })
  decoder.dispose()
  return Math.log(value) * (tokens.length - 1)
}

it('is the sum over samples of the squared gradients, as differences of the loss give them', async () => {
  await quantize(fresh())
  expect(given.size).toBe(6 * 7)
  for (const [name, fisher] of given) {
    expect(
      fisher.some((value) => value > 0),
      name,
    ).toBe(true)
    expect(
      fisher.every((value) => value >= 0 && Number.isFinite(value)),
      name,
    ).toBe(true)
  }
  const roles = ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj', 'self_attn.o_proj']
  for (const role of [...roles, 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj']) {
    for (const layer of role === 'self_attn.q_proj' ? [0, 2, 3, 5] : [1, 4]) {
      const module = `model.layers.${layer}.${role}`
      const fisher = given.get(`${module}.weight`)!
      const most = fisher.indexOf(fisher.reduce((a, b) => Math.max(a, b)))
      const moved = (by: number) =>
        changed((name, matrix) => {
          if (name !== module) return matrix
          const { rows, columns } = matrix
          const values = denseValues(matrix)
          values[most] += by
          return { rows, columns, type: 'f32', values }
        })
      const h = 0.02
      let expected = 0
      for (const window of windows) {
        const slope =
          ((await lossOf(moved(h), window)) - (await lossOf(moved(-h), window))) / (2 * h)
        expected += slope ** 2
      }
      expect(fisher[most] / expected, module).toBeGreaterThan(0.97)
      expect(fisher[most] / expected, module).toBeLessThan(1.03)
    }
  }
})

it('windows are cut into samples of 512 tokens', async () => {
  const checkpoint = { ...demo, config: { ...demo.config, max_position_embeddings: 1024 } }
  const match = 'model.layers.5.mlp.down_proj'
  await quantize(fresh(), { checkpoint, calibration: [long] }, match)
  const whole = given
  const calibration = [long.slice(0, 512), long.slice(512)]
  await quantize(fresh(), { checkpoint, calibration }, match)
  expect(whole.size).toBe(1)
  expect(given).toEqual(whole)
  await quantize(fresh(), { checkpoint, calibration: [long.slice(0, 512)] }, match)
  expect(given).not.toEqual(whole)
})

it('is measured for the blocks that ask for it, and goes when they are done', async () => {
  const out = fresh()
  const writes: string[] = []
  const left: string[][] = []
  const inner = nodeFolder(out)
  const folder: Folder = {
    ...inner,
    async write(name, parts, signal) {
      writes.push(name)
      await inner.write(name, parts, signal)
    },
  }
  const onEvent: QuantizeJob['onEvent'] = async (event) => {
    if (event.kind === 'part') left.push(await readdir(out))
  }
  await quantize(out, { folder, onEvent }, 'model.layers.{1,4}.mlp.**')
  const parts = writes.filter((name) => name.startsWith('fisher'))
  expect(parts).toEqual(['fisher-00004.part.safetensors', 'fisher-00001.part.safetensors'])
  expect(given.size).toBe(2 * 3)
  expect(left).toHaveLength(6)
  expect((await readdir(out)).filter((name) => name.startsWith('fisher'))).toEqual([])
})

it('a job stopped while gradients are measured, or after, goes on and gives the same', async () => {
  await quantize(fresh())
  const expected = given
  const stops: [string, (event: Parameters<NonNullable<QuantizeJob['onEvent']>>[0]) => boolean][] =
    [
      [
        'forward',
        (event) => event.kind === 'step' && event.what === 'running block 3 for gradients',
      ],
      [
        'backward',
        (event) => event.kind === 'step' && event.what === 'measuring gradients, block 2',
      ],
      ['quantizing', (event) => event.kind === 'part' && event.part === 'block-00003'],
    ]
  for (const [when, stop] of stops) {
    const out = fresh()
    const controller = new AbortController()
    const stopped = quantize(out, {
      signal: controller.signal,
      onEvent: (event) => {
        if (stop(event)) controller.abort(new Error('stopped'))
      },
    })
    await expect(stopped, when).rejects.toThrow('stopped')
    const before = new Map(given)
    const file = path.join(out, 'fisher-00005.part.safetensors')
    const written = when === 'backward' ? (await stat(file)).mtimeMs : 0
    // What a stopped run leaves on the kernels is the caller's to drop with them.
    kernels.dispose()
    kernels = await cpu({ threads: 2 })
    await quantize(out, {
      onEvent: async (event) => {
        if (event.kind !== 'step' || !event.what.startsWith('measuring gradients')) return
        expect(when).not.toBe('quantizing')
        if (when === 'backward') expect((await stat(file)).mtimeMs).toBe(written)
      },
    })
    const together = new Map([...before, ...given])
    expect([...together.keys()].toSorted()).toEqual([...expected.keys()].toSorted())
    for (const [name, fisher] of together) expect(fisher, name).toEqual(expected.get(name))
    expect((await readdir(out)).filter((name) => name.includes('part'))).toEqual([])
  }
})

it('says so when there are no gradients, or nothing to predict', async () => {
  const flat: Checkpoint = {
    ...demo,
    async readVector(name) {
      const vector = await demo.readVector(name)
      return name === 'model.norm.weight'
        ? { ...vector, values: vector.values.map(() => 0) }
        : vector
    },
  }
  const fail = (rest: Partial<QuantizeJob>, why: RegExp) =>
    expect(quantize(fresh(), rest)).rejects.toThrow(why)
  await fail({ checkpoint: flat }, /every gradient of the loss is zero/)
  const broken: Checkpoint = {
    ...demo,
    async readVector(name) {
      const vector = await demo.readVector(name)
      return name === 'model.norm.weight'
        ? { ...vector, values: vector.values.fill(Number.NaN) }
        : vector
    },
  }
  await fail({ checkpoint: broken }, /gradients of the loss are NaN/)
  await fail({ calibration: [[1], [2]] }, /no next token/)
  await fail({ calibration: [] }, /--calibration/)
  kernels.dispose()
  kernels = await cpu({ threads: 2 })
})
