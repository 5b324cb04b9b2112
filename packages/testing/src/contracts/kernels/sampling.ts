/** One token from a row of logits. */

import { type SampleOptions, seededRandom } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomValues } from '../../random.ts'
import { softmaxOf } from '../../reference/decoder.ts'
import { type Bench, type BenchOf, expectNear } from './bench.ts'

const PLAIN: SampleOptions = { temperature: 1, topK: 0, topP: 1, random: 0 }

/** So many draws, with `random` evenly over [0, 1): shares are right to about 1 / DRAWS. */
const DRAWS = 400

export function samplingContract(open: BenchOf, it: Declare): void {
  it('temperature 0 takes the largest logit, the first of equals', async () => {
    const { kernels, up } = open()
    for (const random of [0, 0.5, 0.999]) {
      const options = { ...PLAIN, temperature: 0, random }
      expect(await kernels.sample(up([1, 5, 5, 2], 1, 4), options)).toBe(1)
      expect(await kernels.sample(up([-3], 1, 1), options)).toBe(0)
    }
    const logits = randomValues(5003, seededRandom(1))
    logits[4211] = 9
    expect(await kernels.sample(up(logits, 1, 5003), { ...PLAIN, temperature: 0 })).toBe(4211)
  })

  it.each([0.5, 1, 2])('shares are the softmax at temperature %d', async (temperature) => {
    const logits = [0.3, -1, 2, 0, 1.2]
    const expected = softmaxOf(logits.map((x) => x / temperature))
    expectShares(await shares(open(), logits, { temperature }), expected)
  })

  it('topK keeps the k largest', async () => {
    const expected = softmaxOf([2, 1.2])
    const actual = await shares(open(), [0.3, -1, 2, 0, 1.2], { topK: 2 })
    expectShares(actual, [0, 0, expected[0], 0, expected[1]])
    expectShares(await shares(open(), [0.3, -1, 2], { topK: 1 }), [0, 0, 1])
    expectShares(await shares(open(), [0, 0], { topK: 50 }), [0.5, 0.5])
  })

  it('topP keeps the fewest that reach it', async () => {
    const logits = [0.1, 0.2, 0.4, 0.3].map(Math.log)
    expectShares(await shares(open(), logits, { topP: 0.6 }), [0, 0, 4 / 7, 3 / 7])
    expectShares(await shares(open(), logits, { topP: 0.39 }), [0, 0, 1, 0])
    expectShares(await shares(open(), logits, { topP: 0 }), [0, 0, 1, 0])
    const actual = await shares(open(), logits, { topP: 0.8 })
    expectShares(actual, [0, 2 / 9, 4 / 9, 3 / 9])
  })

  it('topP counts what topK has left', async () => {
    const logits = [0.1, 0.2, 0.4, 0.3].map(Math.log)
    // Of 0.4 and 0.3 alone the first has 57 %.
    expectShares(await shares(open(), logits, { topK: 2, topP: 0.5 }), [0, 0, 1, 0])
  })

  it('logits and temperatures at the ends', async () => {
    const { kernels, up } = open()
    const steep = up([-1e30, 1e30, 0], 1, 3)
    expect(await kernels.sample(steep, { ...PLAIN, random: 0.999 })).toBe(1)
    const close = up([1, 1.01, 0.99], 1, 3)
    expect(await kernels.sample(close, { ...PLAIN, temperature: 1e-6, random: 0.999 })).toBe(1)
    for (const random of [0, 1 - 2 ** -24]) {
      const token = await kernels.sample(up([0, 0, 0], 1, 3), { ...PLAIN, random })
      expect([0, 1, 2]).toContain(token)
    }
  })

  it('the same random number gives the same token', async () => {
    const { kernels, up } = open()
    const logits = up(randomValues(2000, seededRandom(4)), 1, 2000)
    const options = { temperature: 0.8, topK: 40, topP: 0.9, random: 0.7 }
    const first = await kernels.sample(logits, options)
    for (let i = 0; i < 5; i++) expect(await kernels.sample(logits, options)).toBe(first)
  })

  it('leaves the logits alone', async () => {
    const { kernels, up } = open()
    const values = randomValues(50, seededRandom(5))
    const logits = up(values, 1, 50)
    await kernels.sample(logits, { temperature: 0.5, topK: 5, topP: 0.5, random: 0.2 })
    expect(await kernels.read(logits)).toEqual(values)
  })
}

async function shares(
  { kernels, up }: Bench,
  logits: number[],
  options: Partial<SampleOptions>,
): Promise<number[]> {
  const tensor = up(logits, 1, logits.length)
  const counts = logits.map(() => 0)
  for (let i = 0; i < DRAWS; i++) {
    const token = await kernels.sample(tensor, { ...PLAIN, ...options, random: (i + 0.5) / DRAWS })
    counts[token]++
  }
  return counts.map((count) => count / DRAWS)
}

function expectShares(actual: number[], expected: ArrayLike<number>): void {
  actual.forEach((share, token) => {
    // What has no share must never come.
    const bound = expected[token] === 0 ? 0 : 2 / DRAWS
    expectNear(share, expected[token], bound, `share of token ${token} in [${actual}]`)
  })
}
