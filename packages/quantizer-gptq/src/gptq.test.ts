import { decode, measureMatrix, seededRandom, unpackCodes } from '@lowbit/core'
import {
  describeQuantizer,
  hessianOf,
  randomActivations,
  randomWeight,
  referenceKernels,
} from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import { gptq } from './gptq.ts'
import { obq } from './obq-judge.ts'

describeQuantizer(gptq, {
  variants: [
    {},
    { bits: 3, groupSize: 32, order: 'none', groups: 'dynamic', search: 1 },
    { bits: 2, groupSize: 16, order: 'group-aware', groups: 'dynamic' },
    { bits: 4, groupSize: 8, order: 'activation', groups: 'dynamic' },
    { bits: 4, symmetric: true, granularity: 'channel', searchWeight: 'none' },
    { grid: 'nf4' },
    { grid: 'nf4', doubleQuantization: true },
    { grid: 'fp4', groupSize: 32 },
    { grid: 'fp8_e4m3', granularity: 'channel' },
    { grid: 'mxfp4' },
    { grid: 'nvfp4' },
    { grid: 'ternary', groupSize: 16 },
  ],
})

const kernels = referenceKernels()

interface Layer {
  values: Float32Array
  hessian: Float32Array
  rows: number
  columns: number
}

function randomLayer(rows: number, columns: number, seed: number): Layer {
  const random = seededRandom(seed)
  const x = randomActivations(4 * columns, columns, random)
  return {
    values: randomWeight(rows, columns, random),
    hessian: hessianOf(x, columns),
    rows,
    columns,
  }
}

async function quantize({ values, hessian, rows, columns }: Layer, options: object) {
  const weight = kernels.upload(values, rows, columns)
  const measured = kernels.upload(hessian, columns, columns)
  const matrix = await gptq(options).quantize({
    name: 'w',
    weight,
    hessian: measured,
    kernels,
    seed: 0,
  })
  kernels.free(weight, measured)
  return matrix
}

/** tr((W − Q) H (W − Q)ᵀ) / tr(W H Wᵀ) */
function outputError(layer: Layer, decoded: Float32Array): number {
  const { values, hessian, rows, columns } = layer
  const power = (d: Float32Array): number => {
    let sum = 0
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < columns; i++) {
        for (let j = 0; j < columns; j++) {
          sum += d[row * columns + i] * hessian[i * columns + j] * d[row * columns + j]
        }
      }
    }
    return sum
  }
  return power(values.map((x, i) => x - decoded[i])) / power(values)
}

describe('against the judge: OBQ that removes one weight at a time', () => {
  it.each([
    [1, 24, 4],
    [5, 40, 3],
    [3, 33, 2],
  ])('%d × %d at %d bits', async (rows, columns, bits) => {
    const layer = randomLayer(rows, columns, columns)
    const options = {
      ...{
        bits,
        order: 'none',
        granularity: 'channel',
        search: 1,
        scaleType: 'f32',
        sweeps: 0,
        damping: 0.01,
      },
    }
    const matrix = await quantize(layer, options)
    const [stage] = matrix.stages
    const numbers = (part: typeof stage.scale): Float32Array =>
      part && 'type' in part.values ? part.values.values : new Float32Array()
    const expected = obq(layer.values, layer.hessian, rows, columns, {
      scale: numbers(stage.scale),
      zero: numbers(stage.zero),
      top: 2 ** bits - 1,
      damping: 0.01,
    })
    expect([...unpackCodes(stage.codes)]).toEqual([...expected])
  })
})

describe('each step helps on layers with outlier channels (mean of 6)', () => {
  const layers = Array.from({ length: 6 }, (_, i) => randomLayer(12, 96, 100 + i))
  const mean = async (options: object): Promise<number> => {
    let sum = 0
    for (const layer of layers) {
      sum += outputError(layer, decode(await quantize(layer, options)))
    }
    return sum / layers.length
  }
  const base = { bits: 3, groupSize: 32 }

  it('error feedback beats rounding alone', async () => {
    // Damping of 1 on a nearly diagonal matrix is rounding to nearest with the same scales.
    const feedback = await mean({ ...base, order: 'none', search: 1 })
    const rounded = await meanRounded()
    expect(feedback).toBeLessThan(rounded * 0.7)

    async function meanRounded(): Promise<number> {
      let sum = 0
      for (const layer of layers) {
        const identity = new Float32Array(layer.columns ** 2)
        for (let i = 0; i < layer.columns; i++) identity[i * layer.columns + i] = 1
        const matrix = await quantize(
          { ...layer, hessian: identity },
          { ...base, order: 'none', search: 1 },
        )
        sum += outputError(layer, decode(matrix))
      }
      return sum / layers.length
    }
  })

  it('act-order beats the natural order', async () => {
    expect(await mean({ ...base, search: 1 })).toBeLessThan(
      await mean({ ...base, search: 1, order: 'none' }),
    )
  })

  it('the weighted search beats none', async () => {
    expect(await mean(base)).toBeLessThan(await mean({ ...base, search: 1 }))
  })
})

describe('what the choices cost', () => {
  const layer = randomLayer(8, 64, 7)
  it('static groups keep the natural order; dynamic act-order stores its permutation', async () => {
    const natural = await quantize(layer, { groupSize: 16 })
    const ordered = await quantize(layer, { groupSize: 16, groups: 'dynamic' })
    const aware = await quantize(layer, { groupSize: 16, groups: 'dynamic', order: 'group-aware' })
    expect(natural.order).toBeUndefined()
    expect(aware.order).toBeUndefined()
    expect([...ordered.order!].sort((a, b) => a - b)).toEqual(
      Array.from({ length: 64 }, (_, i) => i),
    )
    expect(measureMatrix(ordered).total - measureMatrix(natural).total).toBe(64 * 16)
  })

  it('dynamic act-order decodes to the columns that it was given', async () => {
    for (const order of ['activation', 'group-aware', 'none']) {
      const matrix = await quantize(layer, { bits: 8, groupSize: 16, groups: 'dynamic', order })
      expect(outputError(layer, decode(matrix))).toBeLessThan(1e-4)
    }
  })
})

describe('hard cases', () => {
  const layer = randomLayer(4, 32, 9)
  it('a column that never saw an input keeps its weights nearly as they are', async () => {
    const hessian = layer.hessian.slice()
    for (let i = 0; i < 32; i++) hessian[i * 32 + 5] = hessian[5 * 32 + i] = 0
    const decoded = decode(
      await quantize({ ...layer, hessian }, { bits: 8, granularity: 'channel' }),
    )
    for (let row = 0; row < 4; row++) {
      expect(Math.abs(decoded[row * 32 + 5] - layer.values[row * 32 + 5])).toBeLessThan(0.01)
    }
  })

  it('a Hessian with NaN is refused by the name of the tensor', async () => {
    const hessian = layer.hessian.slice()
    hessian[0] = Number.NaN
    await expect(quantize({ ...layer, hessian }, {})).rejects.toThrow(/calibration.*tensor w/)
  })

  it('an indefinite Hessian is damped until it works', async () => {
    const hessian = layer.hessian.slice()
    hessian[3 * 32 + 4] = hessian[4 * 32 + 3] = 1.05 * Math.sqrt(hessian[3 * 33] * hessian[4 * 33])
    const decoded = decode(await quantize({ ...layer, hessian }, { bits: 8 }))
    expect(decoded.every(Number.isFinite)).toBe(true)
  })

  it('no Hessian, or one of another size, is refused', async () => {
    const weight = kernels.upload(layer.values, 4, 32)
    const input = { name: 'w', weight, kernels, seed: 0 }
    await expect(gptq().quantize(input)).rejects.toThrow(/needs the Hessian/)
    const hessian = kernels.tensor(8, 8)
    await expect(gptq().quantize({ ...input, hessian })).rejects.toThrow(/8 × 8.*32 columns/)
  })

  it.each([
    [{ groups: 'dynamic', grid: 'nf4', doubleQuantization: true }, /static groups/],
    [{ groups: 'dynamic', granularity: 'channel' }, /granularity group/],
    [{ damping: 2 }, /damping/],
    [{ order: 'desc' }, /order/],
  ])('contradicting options %o', (options, message) => {
    expect(() => gptq(options as never)).toThrow(message)
  })
})
