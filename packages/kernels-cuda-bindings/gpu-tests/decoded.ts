/** Weights that are decoded on their way to tensor cores: x and they are rounded, and nothing else is. */

import {
  FLOAT_FORMATS,
  floatGrid,
  fromFloat32,
  isQuantized,
  type Kernels,
  type LoadOptions,
  type Matrix,
  normalFloatGrid,
  perGroup,
  seededRandom,
  toNumbers,
  unsignedGrid,
} from '@lowbit/core'
import {
  codebookStage,
  denseValues,
  randomOrder,
  randomValues,
  randomWeight,
  scalarMatrix,
} from '@lowbit/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cuda } from '../src/index.ts'
import { AS, rounded } from './tiles.ts'

interface Sample {
  readonly name: string
  readonly matrix: Matrix
}

const dense = (type: 'f32' | 'f16' | 'bf16', rows: number, columns: number): Matrix => {
  // Rows of very different sizes, as far as f16 holds them.
  const values = randomWeight(rows, columns, seededRandom(columns)).map(
    (value, i) => value * 10 ** ((Math.floor(i / columns) % 3) - 1),
  )
  return { rows, columns, type, values: type === 'f32' ? values : fromFloat32(type, values) }
}

function samples(): Sample[] {
  const random = seededRandom(7)
  const vectors = (along: 'in' | 'out', length: number, rows: number, columns: number) => ({
    ...{ rows, columns },
    stages: [codebookStage(rows, columns, random, { entries: 64, length, along })],
  })
  const nf4 = normalFloatGrid(4)
  return [
    { name: 'NF4, groups of 64', matrix: scalarMatrix(nf4, 70, 200, perGroup(64), random) },
    {
      name: 'E2M1, groups of 16',
      matrix: scalarMatrix(floatGrid(FLOAT_FORMATS.f4_e2m1), 65, 130, perGroup(16), random),
    },
    {
      name: 'E5M2, groups of 3',
      matrix: scalarMatrix(floatGrid(FLOAT_FORMATS.f8_e5m2), 9, 67, perGroup(3), random),
    },
    {
      name: 'int2 with zero points',
      matrix: scalarMatrix(unsignedGrid(2), 80, 96, perGroup(32), random, { asymmetric: true }),
    },
    {
      name: 'NF4, its columns in another order, with scales of rows',
      matrix: {
        ...scalarMatrix(nf4, 20, 128, perGroup(32), random),
        order: randomOrder(128, random),
        rowScale: toNumbers('f32', randomValues(20, random)),
      },
    },
    { name: 'vectors of 4 along the inputs', matrix: vectors('in', 4, 66, 136) },
    { name: 'vectors of 6 along the outputs', matrix: vectors('out', 6, 40, 70) },
  ]
}

/** Weights as halves hold them: each row divided by a power of two. */
function inHalves(matrix: Matrix, halves: 'f16' | 'bf16'): Float64Array {
  const { rows, columns } = matrix
  const scales = isQuantized(matrix) ? matrix.rowScale?.values : undefined
  const values = denseValues(matrix)
  const { bits, value } = AS[halves]
  const out = new Float64Array(values.length)
  for (let n = 0; n < rows; n++) {
    const scale = scales?.[n] ?? 1
    const line = values.subarray(n * columns, (n + 1) * columns).map((weight) => weight / scale)
    const most = line.reduce((most, weight) => Math.max(most, Math.abs(weight)), 0)
    const factor = halves === 'bf16' || most === 0 ? 1 : 2 ** Math.floor(Math.log2(most))
    for (const [k, weight] of line.entries()) {
      out[n * columns + k] = value(bits(weight / factor)) * factor * scale
    }
  }
  return out
}

/** On the GPU of this library: the system's by default. */
export function describeDecoded(library?: string): void {
  let kernels: Kernels
  beforeAll(async () => {
    kernels = await cuda({ library })
  })
  afterAll(() => kernels.dispose())

  async function expectRounded(
    matrix: Matrix,
    activations: NonNullable<LoadOptions['activations']>,
    halves: 'f16' | 'bf16',
  ): Promise<void> {
    const { rows, columns } = matrix
    const weight = kernels.load(matrix, { activations })
    expect(weight.variant).toMatch(new RegExp(`, ${halves} from 5 rows on on tensor cores$`))
    const w = inHalves(matrix, halves)
    // A weight that lies between two halves may go either way, where f32 has decoded it.
    const step = halves === 'f16' ? 2 ** -11 : 2 ** -8
    for (const tokens of [4, 9, 66]) {
      const x = randomValues(tokens * columns, seededRandom(tokens))
      const input = kernels.upload(x, tokens, columns)
      const out = kernels.upload(new Float32Array(tokens * rows).fill(1), tokens, rows)
      kernels.matmul(out, input, weight, { accumulate: true })
      const found = await kernels.read(out)
      const exact = tokens < 5
      const seen = exact ? x : rounded(x, columns, halves)
      const met = exact ? denseValues(matrix) : w
      for (let i = 0; i < found.length; i++) {
        const [token, n] = [Math.floor(i / rows), i % rows]
        let sum = 1
        let reach = 0
        let largest = 0
        for (let k = 0; k < columns; k++) {
          const product = seen[token * columns + k] * met[n * columns + k]
          sum += product
          reach += Math.abs(product)
          largest = Math.max(largest, Math.abs(product))
        }
        const bound = 3e-6 * (1 + reach) + (exact ? 0 : 2 * step * largest)
        expect(Math.abs(found[i] - sum), `${tokens} tokens, out[${token}, ${n}]`).toBeLessThan(
          bound,
        )
      }
      kernels.free(input, out)
    }
    kernels.unload(weight)
    expect(kernels.bytes).toBe(0)
  }

  describe('weights that are decoded for tensor cores', () => {
    it.each(samples().map(({ name, matrix }) => [name, matrix] as const))(
      '%s: x and weights are halves, and nothing else is rounded',
      async (_, matrix) => {
        await expectRounded(matrix, 'int8', 'f16')
      },
    )

    it.each(['f32', 'f16', 'bf16'] as const)('dense %s', async (type) => {
      await expectRounded(dense(type, 70, 130), 'f16', 'f16')
    })

    it('dense bf16 in bf16, whatever sizes there are', async () => {
      await expectRounded(dense('bf16', 70, 130), 'bf16', 'bf16')
      const weight = kernels.load(dense('bf16', 1, 64), { activations: 'bf16' })
      const x = kernels.upload(new Float32Array(8 * 64).fill(1e30), 8, 64)
      const out = kernels.tensor(8, 1)
      kernels.matmul(out, x, weight)
      expect((await kernels.read(out)).every(Number.isFinite)).toBe(true)
      kernels.free(x, out)
      kernels.unload(weight)
    })

    it.each(['int8', 'fp8'] as const)('%s leaves dense weights to f32', (activations) => {
      const weight = kernels.load(dense('f16', 4, 32), { activations })
      expect(weight.variant).toBe(`dense f16 (${activations} is for quantized matrices)`)
      kernels.unload(weight)
    })
  })
}
