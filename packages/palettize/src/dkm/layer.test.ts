import { seededRandom } from '@lowbit/core'
import { cpu } from '@lowbit/kernels-cpu'
import { randomValues, referenceKernels } from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import { attend, backward, freeTrace, type LayerOptions } from './layer.ts'

/** The layer as the paper writes it, a weight at a time, in f64: no trace, no gradients. */
function plainLayer(weights: readonly number[], start: readonly number[], options: LayerOptions) {
  const { temperature, iterations } = options
  const attention = (w: number, table: readonly number[]): number[] => {
    const distances = table.map((c) => (w - c) ** 2)
    const least = Math.min(...distances)
    if (temperature === 0) {
      const nearest = distances.indexOf(least)
      return table.map((_, j) => (j === nearest ? 1 : 0))
    }
    const powers = distances.map((d) => Math.exp((least - d) / temperature))
    const sum = powers.reduce((a, b) => a + b, 0)
    return powers.map((p) => p / sum)
  }
  let table = [...start]
  for (let i = 0; i < iterations; i++) {
    const sums = table.map(() => [0, 0])
    for (const w of weights) {
      attention(w, table).forEach((a, j) => {
        sums[j][0] += a * w
        sums[j][1] += a
      })
    }
    table = table.map((c, j) => (sums[j][1] > 0 ? sums[j][0] / sums[j][1] : c))
  }
  const output = weights.map((w) => {
    const a = attention(w, table)
    return table.reduce((sum, c, j) => sum + a[j] * c, 0)
  })
  return { table, output }
}

const cases: readonly (readonly [string, LayerOptions])[] = [
  ['one assignment', { temperature: 0.3, iterations: 0 }],
  ['one iteration', { temperature: 0.3, iterations: 1 }],
  ['three iterations', { temperature: 0.2, iterations: 3 }],
  ['a low temperature', { temperature: 0.02, iterations: 2 }],
  ['hard', { temperature: 0, iterations: 2 }],
]

describe.each([
  ['reference', async () => referenceKernels()],
  ['cpu', () => cpu({ threads: 1 })],
] as const)('%s kernels', (_, make) => {
  it.each(cases)('%s: forward as plain loops, backward as differences', async (_, options) => {
    const kernels = await make()
    const random = seededRandom(81)
    // Values of bf16's grid, some of them several times: those share a row.
    const values = [-1.5, -0.8125, -0.75, -0.3125, 0.0625, 0.375, 0.53125, 1.25]
    const repeats = [1, 3, 2, 1, 4, 1, 2, 1]
    const weights = values.flatMap((value, i) => new Array<number>(repeats[i]).fill(value))
    const place = repeats.flatMap((count, i) => new Array<number>(count).fill(i))
    const start = [-1, 0.1, 0.9]
    const pull = [...randomValues(weights.length, random)]
    const points = {
      kernels,
      values: kernels.upload(Float32Array.from(values), values.length, 1),
      counts: kernels.upload(Float32Array.from(repeats), values.length, 1),
    }
    const trace = await attend(points, Float32Array.from(start), options)
    const expected = plainLayer(weights, start, options)
    const output = await kernels.read(trace.output)
    weights.forEach((_, i) => {
      expect(output[place[i]]).toBeCloseTo(expected.output[i], 5)
    })
    const table = trace.tables[options.iterations]
    expected.table.forEach((c, j) => {
      expect(table[j]).toBeCloseTo(c, 5)
    })

    const sums = new Float32Array(values.length)
    pull.forEach((g, i) => {
      sums[place[i]] += g
    })
    const gradient = kernels.upload(sums, values.length, 1)
    const found = await backward(points, trace, gradient, options)
    const slope = await kernels.read(found.slope)
    const shared = await kernels.read(found.shared)
    const loss = (moved: readonly number[]): number =>
      plainLayer(moved, start, options).output.reduce((sum, w, i) => sum + w * pull[i], 0)
    const step = 1e-5
    for (const [i, w] of weights.entries()) {
      const at = (value: number) => loss(weights.map((other, k) => (k === i ? value : other)))
      const difference = (at(w + step) - at(w - step)) / (2 * step)
      const mine = slope[place[i]] * pull[i] + shared[place[i]]
      expect(Math.abs(mine - difference), `weight ${i}: ${mine}, ${difference}`).toBeLessThan(
        2e-4 * (1 + Math.abs(difference)),
      )
    }
    freeTrace(kernels, trace)
    kernels.free(points.values, points.counts, gradient, found.slope, found.shared)
    expect(kernels.bytes).toBe(0)
    kernels.dispose()
  })
})

it('an entry that nothing is near stays where it is', async () => {
  const kernels = referenceKernels()
  const points = {
    kernels,
    values: kernels.upload(Float32Array.of(0, 1), 2, 1),
    counts: kernels.upload(Float32Array.of(1, 1), 2, 1),
  }
  const trace = await attend(points, Float32Array.of(0, 1, 50), { temperature: 0, iterations: 2 })
  expect([...trace.tables[2]]).toEqual([0, 1, 50])
  kernels.dispose()
})
