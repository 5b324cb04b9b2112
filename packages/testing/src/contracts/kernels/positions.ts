/** Keys that are coded before RoPE, and turned when attention reads them. */

import { type CacheGrid, HALVES, seededRandom } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { randomValues } from '../../random.ts'
import { type BenchOf, expectRefusal } from './bench.ts'
import { store } from './cache.ts'
import { expectAttendsAsDecoded } from './coded-attention.ts'
import { coupledStore } from './coupled.ts'

const KEYS: readonly (readonly [name: string, grid: CacheGrid, outliers?: number])[] = [
  ['halves', HALVES],
  ['2 bits of a channel', { bits: 2, tokens: 24, channels: 1, symmetric: false }],
  ['3 bits of a token', { bits: 3, tokens: 1, channels: 8, symmetric: false }],
  ['4 bits, symmetric', { bits: 4, tokens: 1, channels: 32, symmetric: true }],
  ['4 bits and outliers', { bits: 4, tokens: 1, channels: 8, symmetric: false }, 2],
  ['4 coupled channels', { ...HALVES, bits: 8, coupled: 4 }],
  ['8 coupled channels', { ...HALVES, bits: 8, coupled: 8 }],
]

export function positionsContract(open: BenchOf, it: Declare): void {
  for (const [name, grid, outliers] of KEYS) {
    it.each([
      [1, 288, 4, 3, 1, 64, true, 3],
      [2, 264, 3, 10, 2, 32, false, 0],
      [3, 264, 260, 4, 2, 32, true, 40],
      [1, 24, 2, 12, 4, 24, false, 1],
      [7, 264, 3, 4, 2, 32, true, 4],
      [19, 48, 5, 8, 4, 8, false, 2],
      [70, 48, 80, 6, 2, 32, true, 4],
    ])(
      `turns keys as it reads them, ${name}: %i rows, %i in codes, %i before, %i heads on %i of %i, rotated %s, from position %i`,
      async (rows, coded, before, heads, keyValueHeads, headSize, rotated, from) => {
        const width = keyValueHeads * headSize
        const random = seededRandom(coded + rows)
        const side = open()
        const { kernels, up } = side
        const half = headSize / 2
        const angles = Float32Array.from({ length: (from + coded + 5) * half }, (_, i) =>
          Math.fround(Math.floor(i / half) / 10 ** ((i % half) / half)),
        )
        const [cos, sin] = [Math.cos, Math.sin].map((f) =>
          up(angles.map(f), from + coded + 5, half),
        )
        const codes = grid.coupled
          ? coupledStore(side, grid.coupled, coded + 3, width)
          : store(side, grid, coded + 24, width)
        const keys = {
          ...codes,
          ...(outliers && { outliers: side.zeros(coded + 24, 2 * outliers, 'u16') }),
          turn: { rotated, cos, sin, from },
        }
        const values = store(side, HALVES, coded + 3, width)
        for (const past of [keys, values]) {
          kernels.encodeRows(past, 0, up(randomValues(coded * width, random), coded, width))
        }
        const sizes = [rows, coded, before, heads, keyValueHeads, headSize] as const
        await expectAttendsAsDecoded(side, [keys, values], sizes, {
          turn(decoded) {
            const signs = new Uint8Array(Math.ceil(width / 8))
            if (rotated) kernels.rotate(decoded, { block: headSize, signs })
            kernels.rope(decoded, cos, sin, headSize, from)
          },
        })
      },
    )
  }

  it('refuses what does not fit', async () => {
    const side = open()
    const { kernels, zeros } = side
    const past = store(side, HALVES, 8, 48)
    const [cos, sin] = [zeros(10, 12), zeros(10, 12)]
    const turn = { rotated: false, cos, sin, from: 2 }
    const shape = { heads: 2, keyValueHeads: 2, headSize: 24, scale: 1, start: 8 }
    const attend = (keys: typeof turn | undefined, values?: typeof turn) =>
      kernels.attendCoded(
        zeros(1, 48),
        zeros(1, 48),
        { ...past, turn: keys },
        { ...past, turn: values },
        8,
        zeros(1, 48),
        zeros(1, 48),
        shape,
      )
    attend(turn)
    await expectRefusal('too few angles', () => attend({ ...turn, from: 3 }))
    await expectRefusal('positions below zero', () => attend({ ...turn, from: -1 }))
    await expectRefusal('angles of other heads', () => attend({ ...turn, cos: zeros(10, 24) }))
    await expectRefusal('fewer sines', () => attend({ ...turn, sin: zeros(9, 12) }))
    await expectRefusal('a rotation of 24', () => attend({ ...turn, rotated: true }))
    await expectRefusal('turned values', () => attend(undefined, turn))
  })
}
