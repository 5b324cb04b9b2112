import { decode, type Quantizer, type QuantizerPlugin } from '@lowbit/core'
import { openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { openDecoder } from '@lowbit/model'
import { gptq } from '@lowbit/quantizer-gptq'
import { rtn } from '@lowbit/quantizer-rtn'
import { demoFolder } from '@lowbit/testing'
import { expect, it } from 'vitest'
import { makeQuantizer } from '../recipe/resolve.ts'
import { measureSensitivity } from './sensitivity.ts'

const PLUGINS: readonly QuantizerPlugin[] = [rtn, gptq]
const MODULES = new Set([
  'model.layers.0.self_attn.q_proj',
  'model.layers.0.mlp.down_proj',
  'model.layers.1.mlp.up_proj',
])
const WINDOWS = [Array.from({ length: 48 }, (_, i) => (i * 37) % 500), [5, 6, 7, 8]]

async function measure(method: string, windows: readonly (readonly number[])[], seen?: Seen[]) {
  const kernels = await cpu({ threads: 1 })
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  const before = kernels.bytes
  const candidates = [2, 3, 4].map((bits) => {
    const quantizer = makeQuantizer(PLUGINS, method, { bits })
    return { bits, quantizer: seen ? watched(quantizer, seen) : quantizer }
  })
  try {
    const found = await measureSensitivity({
      ...{ checkpoint, kernels, modules: MODULES, candidates, windows, seed: 0 },
    })
    expect(kernels.bytes).toBe(before)
    return found
  } finally {
    await checkpoint.close()
    kernels.dispose()
  }
}

interface Seen {
  readonly weight: Float32Array
  readonly decoded: Float32Array
  readonly hessian?: Float32Array
}

/** A quantizer that keeps what it was given and what it made. */
function watched(quantizer: Quantizer, seen: Seen[]): Quantizer {
  return {
    ...quantizer,
    async quantize(input) {
      const weight = await input.kernels.read(input.weight)
      const hessian = input.hessian && (await input.kernels.read(input.hessian))
      const matrix = await quantizer.quantize(input)
      seen.push({ weight, hessian, decoded: decode(matrix) })
      return matrix
    },
  }
}

it('weighs each column’s squared error by its input’s mean square, and gives that alone', async () => {
  const seen: Seen[] = []
  const found = await measure('gptq', WINDOWS, seen)
  expect(found.map(({ module }) => module).sort()).toEqual([...MODULES].sort())
  const choices = found.flatMap((one) => one.choices.map((choice) => ({ ...choice, of: one })))
  expect(choices).toHaveLength(seen.length)
  for (const [i, { loss, of }] of choices.entries()) {
    const { weight, decoded, hessian } = seen[i]
    const columns = Math.sqrt(hessian!.length)
    expect(weight.length).toBe(of.weights)
    let [lost, power] = [0, 0]
    for (let at = 0; at < weight.length; at++) {
      const h = hessian![(at % columns) * (columns + 1)]
      lost += h * (weight[at] - decoded[at]) ** 2
      power += h * weight[at] ** 2
    }
    expect((loss * power) / (lost * of.weights)).toBeCloseTo(1, 3)
    expect(hessian!.filter((x, at) => x !== 0 && at % (columns + 1) !== 0)).toHaveLength(0)
  }
})

it('finds the inputs that the original model has', async () => {
  const seen: Seen[] = []
  await measure('gptq', WINDOWS, seen)
  const kernels = await cpu({ threads: 1 })
  const checkpoint = await openFolder(nodeFolder(demoFolder()))
  const opened = openDecoder(checkpoint, kernels)
  // Inputs of the first block's queries by hand: embedding, RMS norm, gain.
  const { hidden, architecture } = opened.config
  const embedding = kernels.load(await checkpoint.readMatrix(architecture.modules.embedding))
  const tokens = WINDOWS.flat()
  const x = kernels.tensor(tokens.length, hidden)
  kernels.gather(x, embedding, Uint32Array.from(tokens))
  const rows = await kernels.read(x)
  const gain = (await checkpoint.readVector('model.layers.0.input_layernorm.weight')).values
  const expected = new Float64Array(hidden)
  for (let t = 0; t < tokens.length; t++) {
    const row = rows.subarray(t * hidden, (t + 1) * hidden)
    const mean = row.reduce((sum, v) => sum + v * v, 0) / hidden
    for (let i = 0; i < hidden; i++) {
      expected[i] += (row[i] * gain[i]) ** 2 / (mean + 1e-5) / tokens.length
    }
  }
  const measured = seen[0].hessian!
  for (let i = 0; i < hidden; i++) {
    expect(measured[i * (hidden + 1)] / expected[i]).toBeCloseTo(1, 2)
  }
  await checkpoint.close()
  kernels.dispose()
})

it('loses less with more bits, and needs no text where the method needs none', async () => {
  for (const { choices, weights } of await measure('rtn', [])) {
    const losses = choices.map(({ loss }) => loss)
    expect(losses).toEqual([...losses].sort((a, b) => b - a))
    expect(losses[0]).toBeLessThan(weights)
    for (const { bits, size } of choices) expect(size).toBeGreaterThan(bits * weights)
  }
})
