import { expect, it } from 'vitest'
import { normalDistribution, normalFloat, normalQuantile } from './normal-float.ts'

/** QLoRA, appendix E; the table that bitsandbytes ships. */
const NF4 = [
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
  -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
  0.7229568362236023, 1.0,
]

it('gives the published NF4 table', () => {
  const levels = normalFloat(4)
  NF4.forEach((level, i) => {
    expect(levels[i]).toBeCloseTo(level, 6)
  })
})

it.each([1, 2, 3, 5, 6, 8])('NF%d ascends from −1 (or 0) to 1 through an exact 0', (bits) => {
  const levels = [...normalFloat(bits)]
  expect(levels).toHaveLength(2 ** bits)
  expect(levels).toContain(0)
  expect(levels.at(-1)).toBe(1)
  expect(levels.every((level, i) => i === 0 || level > levels[i - 1])).toBe(true)
})

it('the quantile inverts the distribution', () => {
  for (const p of [1e-12, 1e-5, 0.02, 0.3, 0.5, 0.7, 0.999]) {
    const x = normalQuantile(p)
    expect(normalDistribution(x) / p).toBeCloseTo(1, 10)
  }
  expect(normalQuantile(0.975)).toBeCloseTo(1.959963984540054, 12)
})
