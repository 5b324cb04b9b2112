import { type Kernels, seededRandom, type Tensor } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { randomValues, referenceKernels } from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import {
  backwardBlock,
  type DifferentiableBlock,
  type DifferentiableLinear,
  freeTrace,
  traceBlock,
} from './backward.ts'
import { backwardHead } from './backward-head.ts'
import { attendWithin, type Block, type BlockContext, type Role, runBlock } from './block.ts'
import { type DecoderConfig, decoderConfig } from './config.ts'
import { roleShape } from './load.ts'
import { ROLES } from './names.ts'
import { ropeTable } from './rope-table.ts'

const TOKENS = 7
const config = decoderConfig({
  model_type: 'llama',
  hidden_size: 24,
  intermediate_size: 40,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 32,
  vocab_size: 4500,
})

/** A block without a gate, with layer norms and biases, as in older families. */
const older: DecoderConfig = {
  ...config,
  architecture: { ...config.architecture, norm: 'layer' },
  activation: 'gelu_erf',
}

type Values = Record<string, Float32Array>

/** Every parameter of a block and its input, by name. */
function randomBlock(of: DecoderConfig): Values {
  const random = seededRandom(5)
  const values: Values = { input: randomValues(TOKENS * of.hidden, random) }
  for (const norm of ['attentionNorm', 'mlpNorm']) {
    values[norm] = randomValues(of.hidden, random).map((gain) => 1 + 0.3 * gain)
    if (of === older) values[`${norm}.bias`] = randomValues(of.hidden, random, 0.3)
  }
  for (const role of ROLES) {
    if (of === older && role === 'gate') continue
    const [rows, columns] = roleShape(of, role)
    values[role] = randomValues(rows * columns, random, columns ** -0.5)
    if (of === older) values[`${role}.bias`] = randomValues(rows, random, 0.3)
  }
  return values
}

function contextOf(kernels: Kernels, of: DecoderConfig): BlockContext {
  const { cos, sin } = ropeTable(of, TOKENS)
  const table = (values: Float32Array): Tensor => kernels.upload(values, TOKENS, of.headSize / 2)
  return { kernels, config: of, cos: table(cos), sin: table(sin) }
}

/** With dense tensors as weights, or loaded. */
function blockOf(kernels: Kernels, of: DecoderConfig, values: Values, loaded: boolean) {
  const vector = (name: string): Tensor | undefined =>
    values[name] && kernels.upload(values[name], 1, values[name].length)
  const norm = (name: string) => ({ gain: vector(name)!, bias: vector(`${name}.bias`) })
  const linears: Partial<Record<Role, DifferentiableLinear>> = {}
  for (const role of ROLES) {
    if (!values[role]) continue
    const [rows, columns] = roleShape(of, role)
    const weight = loaded
      ? kernels.load({ type: 'f32', values: values[role], rows, columns })
      : kernels.upload(values[role], rows, columns)
    linears[role] = { weight, bias: vector(`${role}.bias`) }
  }
  const block: DifferentiableBlock = {
    ...{ attentionNorm: norm('attentionNorm'), mlpNorm: norm('mlpNorm'), linears },
  }
  return block
}

/** Gradients of Σ output ∘ pull by every parameter, and the output. */
async function gradientsOf(
  kernels: Kernels,
  of: DecoderConfig,
  values: Values,
  pull: Float32Array,
  loaded = false,
): Promise<Values> {
  const context = contextOf(kernels, of)
  const block = blockOf(kernels, of, values, loaded)
  const x = kernels.upload(values.input, TOKENS, of.hidden)
  const found: Record<string, Tensor> = {}
  const sums = (name: string) => {
    found[name] = kernels.tensor(1, of.hidden)
    if (of !== older) return { gain: found[name] }
    found[`${name}.bias`] = kernels.tensor(1, of.hidden)
    return { gain: found[name], bias: found[`${name}.bias`] }
  }
  const trace = traceBlock(context, block, x)
  found.input = kernels.upload(pull, TOKENS, of.hidden)
  backwardBlock(context, block, trace, found.input, {
    attentionNorm: sums('attentionNorm'),
    mlpNorm: sums('mlpNorm'),
    onLinear(role, input, output) {
      found[role] = kernels.tensor(output.columns, input.columns)
      kernels.crossGram(found[role], output, input, 1)
    },
  })
  const held = kernels.bytes
  freeTrace(kernels, trace)
  // Streams, inputs, q, attended: hidden; k and v: half of it; the MLP's three.
  const columns = 6 * of.hidden + of.hidden + (values.gate ? 3 : 2) * of.intermediate
  expect(held - kernels.bytes).toBe(4 * TOKENS * columns)
  const result: Values = { output: await kernels.read(x) }
  for (const [name, tensor] of Object.entries(found)) result[name] = await kernels.read(tensor)
  return result
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i]
  return sum
}

describe.each([
  ['llama', config],
  ['layer norms, no gate, biases', older],
])('a block backward: %s', (_, of) => {
  const values = randomBlock(of)
  const pull = randomValues(TOKENS * of.hidden, seededRandom(8))

  it('agrees with differences, parameter by parameter', async () => {
    const kernels = referenceKernels()
    const gradients = await gradientsOf(kernels, of, values, pull)
    const context = contextOf(kernels, of)
    const loss = async (moved: Values): Promise<number> => {
      const x = kernels.upload(moved.input, TOKENS, of.hidden)
      freeTrace(kernels, traceBlock(context, blockOf(kernels, of, moved, false), x))
      return dot(await kernels.read(x), pull)
    }
    const random = seededRandom(3)
    for (const [name, value] of Object.entries(values)) {
      // The callback leaves biases of linears to their owners.
      if (!gradients[name]) {
        expect(name).toMatch(/bias$/)
        continue
      }
      const direction = randomValues(value.length, random)
      const h = 2 ** -9
      const at = (step: number) =>
        loss({ ...values, [name]: value.map((v, i) => v + step * direction[i]) })
      const difference = ((await at(h)) - (await at(-h))) / (2 * h)
      const along = dot(gradients[name], direction)
      const size = Math.sqrt(dot(gradients[name], gradients[name]))
      expect(size, name).toBeGreaterThan(0)
      expect(Math.abs(along - difference), `${name}: ${along}, ${difference}`).toBeLessThan(
        2e-3 * size,
      )
    }
  })

  it.each([1, 2])(
    'is the same on the CPU with %i threads, and with loaded weights',
    async (threads) => {
      const expected = await gradientsOf(referenceKernels(), of, values, pull)
      const kernels = await cpu({ threads })
      for (const loaded of [false, true]) {
        const actual = await gradientsOf(kernels, of, values, pull, loaded)
        expect(Object.keys(actual)).toEqual(Object.keys(expected))
        for (const [name, value] of Object.entries(expected)) {
          const error = actual[name].map((x, i) => x - value[i])
          expect(dot(error, error), name).toBeLessThan(1e-10 * dot(value, value))
        }
      }
      kernels.dispose()
    },
  )

  it('runs forward as runBlock does', async () => {
    const kernels = referenceKernels()
    const context = contextOf(kernels, of)
    const block = blockOf(kernels, of, values, true)
    const x = kernels.upload(values.input, TOKENS, of.hidden)
    runBlock(context, block as Block, x, attendWithin(context))
    const { output } = await gradientsOf(referenceKernels(), of, values, pull)
    const expected = await kernels.read(x)
    output.forEach((value, i) => {
      expect(value).toBeCloseTo(expected[i], 5)
    })
  })
})

describe('the head backward', () => {
  const { hidden, vocabulary } = config
  const random = seededRandom(4)
  const stream = randomValues(TOKENS * hidden, random)
  const gain = randomValues(hidden, random).map((g) => 1 + 0.3 * g)
  const output = randomValues(vocabulary * hidden, random, hidden ** -0.5)
  const targets = Uint32Array.from({ length: TOKENS }, (_, i) => (i * 977) % vocabulary)

  const headOf = (kernels: Kernels, gains: Float32Array) => ({
    finalNorm: { gain: kernels.upload(gains, 1, hidden) },
    output: kernels.load({ type: 'f32', values: output, rows: vocabulary, columns: hidden }),
  })

  async function gradientOf(kernels: Kernels, most?: number) {
    const context = contextOf(kernels, config)
    const x = kernels.upload(stream, TOKENS, hidden)
    const sums = kernels.tensor(1, hidden)
    const head = headOf(kernels, gain)
    const before = kernels.bytes
    const gradient = backwardHead(
      context,
      head,
      x,
      (logits, from) => {
        const some = targets.subarray(from, from + logits.rows)
        kernels.crossEntropyGradient(logits, logits, some, 1)
      },
      { finalNorm: { gain: sums }, most },
    )
    expect(kernels.bytes - before, 'nothing else is kept').toBe(4 * TOKENS * hidden)
    return { stream: await kernels.read(gradient), gain: await kernels.read(sums) }
  }

  it('agrees with differences', async () => {
    const kernels = referenceKernels()
    const found = await gradientOf(kernels)
    const loss = async (x: Float32Array, gains: Float32Array): Promise<number> => {
      const head = headOf(kernels, gains)
      const normed = kernels.tensor(TOKENS, hidden)
      kernels.rmsNorm(
        normed,
        kernels.upload(x, TOKENS, hidden),
        head.finalNorm.gain,
        config.epsilon,
      )
      const logits = kernels.tensor(TOKENS, vocabulary)
      kernels.matmul(logits, normed, head.output)
      const out = kernels.tensor(TOKENS, 1)
      kernels.crossEntropy(out, logits, targets)
      return (await kernels.read(out)).reduce((sum, value) => sum + value, 0)
    }
    const h = 2 ** -7
    for (const [name, value] of [
      ['stream', stream],
      ['gain', gain],
    ] as const) {
      const direction = randomValues(value.length, random)
      const at = (step: number) => {
        const moved = value.map((v, i) => v + step * direction[i])
        return name === 'stream' ? loss(moved, gain) : loss(stream, moved)
      }
      const difference = ((await at(h)) - (await at(-h))) / (2 * h)
      expect(Math.abs(dot(found[name], direction) - difference), name).toBeLessThan(
        2e-3 * Math.sqrt(dot(found[name], found[name])),
      )
    }
  })

  it('does not depend on how many rows are taken at a time, nor on the kernels', async () => {
    const whole = await gradientOf(referenceKernels())
    const kernels = await cpu({ threads: 2 })
    for (const most of [1, 3 * vocabulary, undefined]) {
      const { stream, gain } = await gradientOf(kernels, most)
      for (const [actual, expected] of [
        [stream, whole.stream],
        [gain, whole.gain],
      ]) {
        const error = actual.map((x, i) => x - expected[i])
        expect(dot(error, error)).toBeLessThan(1e-10 * dot(expected, expected))
      }
    }
    kernels.dispose()
  })
})
