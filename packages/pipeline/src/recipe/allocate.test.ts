import { seededRandom } from '@lowbit/core'
import { expect, it } from 'vitest'
import { type Allocation, allocateBits, allocationRange, type Sensitivity } from './allocate.ts'

const random = seededRandom(11)

/** Losses that fall by about 4 with each bit, but not evenly: some choices lie above the hull. */
function sample(matrices: number): Sensitivity[] {
  return Array.from({ length: matrices }, (_, i) => {
    const weights = 4096 * (1 + Math.floor(random() * 4))
    const scale = 10 ** (2 * random())
    return {
      ...{ module: `m${i}`, weights },
      choices: [1, 2, 3, 4, 6, 8].map((bits) => {
        // 2^bits values of 16 bits beside the codes.
        const size = bits * weights + 16 * 2 ** bits
        return { bits, size, loss: scale * 4 ** -bits * (0.4 + 1.2 * random()) }
      }),
    }
  })
}

interface Found {
  readonly size: number
  readonly loss: number
}

/** Every combination of choices. */
function combinations(matrices: readonly Sensitivity[]): Found[] {
  return matrices.reduce<Found[]>(
    (all, { choices }) =>
      all.flatMap((one) =>
        choices.map(({ size, loss }) => ({ size: one.size + size, loss: one.loss + loss })),
      ),
    [{ size: 0, loss: 0 }],
  )
}

const weightsOf = (matrices: readonly Sensitivity[]): number =>
  matrices.reduce((sum, { weights }) => sum + weights, 0)

/** The largest single step up a matrix's choices: as much a plain Lagrangian may miss. */
const largestStep = (matrices: readonly Sensitivity[], { choices }: Allocation): number =>
  Math.max(
    ...matrices.map(({ module, choices: all }) => {
      return choices.get(module)!.loss - Math.min(...all.map(({ loss }) => loss))
    }),
  )

it('is as good as every combination tried, where a price of bits leads there', () => {
  let exact = 0
  for (let trial = 0; trial < 40; trial++) {
    const matrices = sample(4)
    const weights = weightsOf(matrices)
    const all = combinations(matrices)
    const [least, most] = allocationRange(matrices)
    for (const share of [0, 0.15, 0.3, 0.5, 0.8, 1]) {
      const target = least + share * (most - least)
      const found = allocateBits(matrices, target)
      expect(found.bitsPerWeight).toBeLessThanOrEqual(target + 1e-6)
      const best = (budget: number): number =>
        Math.min(
          ...all.filter(({ size }) => size <= budget * weights + 1e-3).map(({ loss }) => loss),
        )
      // Not worse than the best by more than one step of one matrix.
      expect(found.loss).toBeLessThanOrEqual(best(target) + largestStep(matrices, found) + 1e-9)
      if (found.loss <= best(found.bitsPerWeight) * (1 + 1e-9)) exact++
    }
  }
  // With its own bits as the budget it is nearly always the very best: all but the filling of the rest.
  expect(exact).toBeGreaterThan(0.7 * 40 * 6)
})

it('is the very best at every corner of the trade-off', () => {
  for (let trial = 0; trial < 20; trial++) {
    const matrices = sample(4)
    const weights = weightsOf(matrices)
    const all = combinations(matrices)
    for (let price = 1e-5; price < 1; price *= 3) {
      // The least of loss + price · size over everything is a corner.
      const corner = all.reduce((a, b) =>
        a.loss + price * a.size <= b.loss + price * b.size ? a : b,
      )
      const found = allocateBits(matrices, corner.size / weights)
      expect(found.loss).toBeCloseTo(corner.loss, 9)
      expect(found.bitsPerWeight).toBeCloseTo(corner.size / weights, 9)
    }
  }
})

it('gives sensitive matrices more', () => {
  const choices = [2, 4].map((bits) => ({ bits, size: bits * 100, loss: 4 ** -bits }))
  const dull = { module: 'dull', weights: 100, choices }
  const keen = {
    ...dull,
    module: 'keen',
    choices: choices.map((c) => ({ ...c, loss: 9 * c.loss })),
  }
  const { choices: chosen, bitsPerWeight } = allocateBits([dull, keen], 3)
  expect([chosen.get('dull')?.bits, chosen.get('keen')?.bits, bitsPerWeight]).toEqual([2, 4, 3])
})

it('leaves choices alone that cost more and lose more', () => {
  const choices = [
    { bits: 2, size: 200, loss: 1 },
    { bits: 3, size: 300, loss: 2 },
  ]
  expect(allocationRange([{ module: 'm', weights: 100, choices }])).toEqual([2, 2])
})

it.each([0.5, 9, Number.NaN])('refuses a target of %d by name, with what is possible', (target) => {
  const matrices = sample(3)
  expect(() => allocateBits(matrices, target)).toThrow(
    expect.objectContaining({
      code: 'bad-option',
      option: 'targetBits',
      message: expect.stringMatching(/these matrices take \d\.\d{3} to \d\.\d{3}/),
    }),
  )
})
