import {
  decode,
  equalMatrices,
  measureMatrix,
  type QuantizedMatrix,
  seededRandom,
  unpackCodes,
  validateMatrix,
} from '@lowbit/core'
import {
  describeQuantizer,
  hessianOf,
  randomActivations,
  randomWeight,
  referenceKernels,
} from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import { palettize } from './palettize.ts'

const grouped = { granularity: 'per-grouped-channel' } as const

describeQuantizer(palettize, {
  variants: [
    {},
    { bits: 2, importance: 'none' },
    { bits: 3, importance: 'none', feedback: true, rounds: 0, sweeps: 0 },
    { bits: 3, ...grouped, groupSize: 4 },
    { bits: 3, ...grouped, groupSize: 5, axis: 1 },
    { bits: 4, perChannelScale: true },
    { bits: 4, ...grouped, groupSize: 16, perChannelScale: true, tableType: 'u8' },
    { bits: 4, tableType: 'i8', feedback: false },
    { bits: 3, tableType: 'u8' },
    { bits: 3, outliers: 0.02 },
    { bits: 2, outliers: 0.05, feedback: false, perChannelScale: true },
    { bits: 4, mode: 'uniform', importance: 'none' },
    { bits: 3, mode: 'sensitive' },
    { bits: 3, mode: 'sensitive', feedback: true },
    { bits: 3, mode: 'dkm', steps: 6 },
    { bits: 2, mode: 'dkm', steps: 6, feedback: false, perChannelScale: true },
    { bits: 2, mode: 'gsm', steps: 4, ...grouped, groupSize: 5 },
    { bits: 3, mode: 'hard', steps: 4, importance: 'none' },
    { bits: 1 },
    { bits: 8 },
    { bits: 6, clusterDim: 2 },
    { bits: 8, clusterDim: 4, feedback: false },
    { bits: 8, clusterDim: 4, axis: 1 },
    { bits: 8, clusterDim: 2, axis: 1, importance: 'none' },
  ],
})

const kernels = referenceKernels()

interface Layer {
  values: Float32Array
  rows: number
  columns: number
  hessian?: Float32Array
  fisher?: Float32Array
}

function randomLayer(rows: number, columns: number, seed: number): Required<Layer> {
  const random = seededRandom(seed)
  const values = randomWeight(rows, columns, random)
  const hessian = hessianOf(randomActivations(4 * columns, columns, random), columns)
  const fisher = values.map(() => random() ** 4 + 1e-4)
  return { values, rows, columns, hessian, fisher }
}

async function quantize(
  { values, rows, columns, hessian, fisher }: Layer,
  options: Parameters<typeof palettize>[0],
): Promise<QuantizedMatrix> {
  const input = {
    weight: kernels.upload(values, rows, columns),
    ...(hessian && { hessian: kernels.upload(hessian, columns, columns) }),
    ...(fisher && { fisher: kernels.upload(fisher, rows, columns) }),
  }
  try {
    const matrix = await palettize(options).quantize({ name: 'w', ...input, kernels, seed: 0 })
    validateMatrix(matrix, 'w')
    return matrix
  } finally {
    kernels.free(...Object.values(input))
  }
}

/** tr((W − Q) H (W − Q)ᵀ) / tr(W H Wᵀ) */
function outputError({ values, hessian, rows, columns }: Layer, decoded: Float32Array): number {
  const power = (d: Float32Array): number => {
    let sum = 0
    for (let row = 0; row < rows; row++) {
      for (let i = 0; i < columns; i++) {
        for (let j = 0; j < columns; j++) {
          sum += d[row * columns + i] * hessian![i * columns + j] * d[row * columns + j]
        }
      }
    }
    return sum
  }
  return power(values.map((x, i) => x - decoded[i])) / power(values)
}

describe('each step helps (mean of 6 layers with outlier channels)', () => {
  const layers = Array.from({ length: 6 }, (_, i) => randomLayer(12, 96, 200 + i))
  const mean = async (options: Parameters<typeof palettize>[0]): Promise<number> => {
    let sum = 0
    for (const layer of layers) sum += outputError(layer, decode(await quantize(layer, options)))
    return sum / layers.length
  }

  it('importance beats plain k-means', async () => {
    const plain = await mean({ bits: 3, importance: 'none' })
    expect(await mean({ bits: 3, feedback: false })).toBeLessThan(plain)
  })

  it('feedback beats nearest values', async () => {
    const nearest = await mean({ bits: 3, feedback: false })
    expect(await mean({ bits: 3, rounds: 0, sweeps: 0 })).toBeLessThan(0.8 * nearest)
  })

  it('refitting beats tables as they were', async () => {
    expect(await mean({ bits: 2, rounds: 3 })).toBeLessThan(await mean({ bits: 2, rounds: 0 }))
  })

  it('training beats nearest values, in each of its modes', async () => {
    const nearest = await mean({ bits: 2, feedback: false })
    for (const [mode, share] of [
      ['dkm', 0.7],
      ['gsm', 0.7],
      ['hard', 1],
    ] as const) {
      const trained = await mean({ bits: 2, feedback: false, mode })
      expect(trained, mode).toBeLessThan(share * nearest)
    }
  })

  it('feedback’s sweeps and refits go on from what training has found', async () => {
    const trained = await mean({ bits: 2, feedback: false, mode: 'dkm', steps: 40 })
    expect(await mean({ bits: 2, mode: 'dkm', steps: 40 })).toBeLessThan(trained)
  })

  it('outliers kept dense beat none', async () => {
    const none = await mean({ bits: 2, feedback: false })
    expect(await mean({ bits: 2, feedback: false, outliers: 0.02 })).toBeLessThan(0.9 * none)
  })
})

describe('what is stored', () => {
  const layer = randomLayer(20, 48, 7)

  it.each([
    [{ bits: 4 }, 20 * 48 * 4 + 16 * 16],
    [{ bits: 3, ...grouped, groupSize: 8 }, 20 * 48 * 3 + 3 * 8 * 16],
    [{ bits: 3, ...grouped, groupSize: 20, axis: 1 }, 20 * 48 * 3 + 3 * 8 * 16],
    [{ bits: 4, tableType: 'i8' }, 20 * 48 * 4 + 16 * 8 + 32],
    [{ bits: 4, tableType: 'u8' }, 20 * 48 * 4 + 16 * 8 + 32 + 32],
    [{ bits: 4, perChannelScale: true }, 20 * 48 * 4 + 16 * 16 + 20 * 16],
    [{ bits: 4, outliers: 0.01 }, 20 * 48 * 4 + 16 * 16 + 9 * 80],
  ] as const)('%o: %d bits', async (options, bits) => {
    expect(measureMatrix(await quantize(layer, options)).total).toBe(bits)
  })

  it('plain palettes put every weight on its nearest value', async () => {
    for (const tableType of ['f32', 'f16', 'i8', 'u8'] as const) {
      const options = { bits: 3, ...grouped, groupSize: 6, feedback: false, tableType } as const
      const decoded = decode(await quantize(layer, options))
      for (let i = 0; i < decoded.length; i++) {
        const block = Math.floor(i / 48 / 6)
        const own = decoded.subarray(block * 6 * 48, (block + 1) * 6 * 48)
        const least = own.reduce((d, t) => Math.min(d, Math.abs(t - layer.values[i])), 1)
        expect(Math.abs(decoded[i] - layer.values[i])).toBeLessThan(least + 1e-7)
      }
    }
  })

  it('the uniform mode has evenly spaced values from end to end', async () => {
    const options = { bits: 2, mode: 'uniform', feedback: false, tableType: 'f32' } as const
    const values = [...new Set(decode(await quantize(layer, options)))].sort((a, b) => a - b)
    const [low, high] = [Math.min(...layer.values), Math.max(...layer.values)]
    expect(values.length).toBe(4)
    values.forEach((x, i) => {
      expect(x).toBeCloseTo(low + ((high - low) * i) / 3, 6)
    })
  })

  it('the unique mode loses nothing and finds its bits', async () => {
    for (const [count, bits] of [
      [1, 1],
      [4, 2],
      [5, 3],
      [17, 6],
      [200, 8],
    ]) {
      const values = layer.values.map((_, i) => Math.fround(((i * 7) % count) * 0.1 - 0.3))
      const matrix = await quantize({ ...layer, values }, { mode: 'unique' })
      expect(decode(matrix)).toEqual(values)
      expect(matrix.stages[0].codes.bits).toBe(bits)
    }
  })

  it('the custom mode takes the tables of a function', async () => {
    const seen: number[] = []
    const table = (weights: Float32Array, importance: Float32Array) => {
      seen.push(weights.length)
      expect(importance.length).toBe(weights.length)
      return [0.1, -0.1, 0.05]
    }
    const options = { mode: 'custom', table, ...grouped, groupSize: 16, feedback: false } as const
    const matrix = await quantize(layer, options)
    expect(seen).toEqual([16 * 48, 4 * 48])
    const half = (x: number) => expect.closeTo(x, 4)
    const values = [...new Set(decode(matrix))].sort((a, b) => a - b)
    expect(values).toEqual([half(-0.1), half(0.05), half(0.1)])
    expect(matrix.stages[0].codes.bits).toBe(2)
  })

  it('the sensitive mode weighs by Fisher information, the same as importance of each weight', async () => {
    const { values, rows, columns } = layer
    // All importance on the weights of one row: its 16 values are kept as they are.
    const row = values.slice(0, columns).map((_, i) => Math.fround((i % 16) * 0.01))
    const own = values.slice()
    own.set(row)
    const fisher = own.map((_, i) => (i < columns ? 1 : 0))
    const options = { mode: 'sensitive', tableType: 'f32' } as const
    const decoded = decode(await quantize({ values: own, rows, columns, fisher }, options))
    decoded.subarray(0, columns).forEach((x, i) => {
      expect(x).toBeCloseTo(row[i], 6)
    })
  })
})

describe('vector palettes', () => {
  const layer = randomLayer(21, 45, 13)

  it('mean the vectors of their table along the axis; what does not divide is cut', async () => {
    for (const axis of [0, 1] as const) {
      const matrix = await quantize(layer, { bits: 8, clusterDim: 4, axis, feedback: false })
      const [stage] = matrix.stages
      expect(stage.vector).toEqual({ length: 4, along: axis === 0 ? 'out' : 'in' })
      expect(stage.codes.count).toBe(axis === 0 ? 6 * 45 : 21 * 12)
      // 256 vectors for about as many: little is lost.
      expect(outputError(layer, decode(matrix))).toBeLessThan(0.05)
    }
  })

  it('refitted tables beat those that k-means left', async () => {
    for (const axis of [0, 1] as const) {
      const error = async (rounds: number): Promise<number> => {
        const options = { bits: 4, clusterDim: 2, axis, rounds } as const
        return outputError(layer, decode(await quantize(layer, options)))
      }
      expect(await error(2)).toBeLessThan(await error(0))
    }
  })

  it('feedback beats nearest vectors', async () => {
    for (const axis of [0, 1] as const) {
      const options = { bits: 4, clusterDim: 2, axis } as const
      const nearest = outputError(
        layer,
        decode(await quantize(layer, { ...options, feedback: false })),
      )
      expect(outputError(layer, decode(await quantize(layer, options)))).toBeLessThan(nearest)
    }
  })

  it.each([
    [{ clusterDim: 3 }, /1, 2, 4, 8/],
    [{ clusterDim: 2, ...grouped }, /whole matrix/],
    [{ clusterDim: 2, mode: 'uniform' }, /k-means/],
    [{ clusterDim: 2, perChannelScale: true }, /no scales/],
    [{ clusterDim: 2, outliers: 0.01 }, /outliers/],
    [{ clusterDim: 2, tableType: 'i8' }, /f16 or f32/],
  ])('contradicting options %o', (options, message) => {
    expect(() => palettize(options as never)).toThrow(message)
  })
})

describe('hard cases', () => {
  const layer = randomLayer(9, 32, 11)

  it('more centroids than different values: the table is padded, nothing is lost', async () => {
    const values = layer.values.map((_, i) => (i % 5) / 8)
    for (const options of [
      { bits: 6 },
      { bits: 4, ...grouped, groupSize: 2 },
      { bits: 8, feedback: false },
    ] as const) {
      const matrix = await quantize({ ...layer, values }, options)
      expect(outputError({ ...layer, values }, decode(matrix))).toBeLessThan(1e-9)
    }
  })

  it('a constant matrix, with scales of rows and with outliers', async () => {
    const values = layer.values.map(() => 0.25)
    for (const options of [{ perChannelScale: true }, { outliers: 0.05 }, { bits: 1 }] as const) {
      const decoded = decode(await quantize({ ...layer, values }, options))
      for (const x of decoded) expect(x).toBeCloseTo(0.25, 3)
    }
  })

  it('a constant matrix has nothing to train', async () => {
    const values = layer.values.map(() => 0.25)
    const decoded = decode(await quantize({ ...layer, values }, { mode: 'dkm', bits: 2, steps: 3 }))
    expect(decoded.every((x) => x === 0.25)).toBe(true)
  })

  it('palettes of groups are trained each by itself', async () => {
    const options = { mode: 'dkm', bits: 2, steps: 5, feedback: false } as const
    const half = 5
    const both = { ...layer, fisher: undefined }
    const whole = decode(await quantize(both, { ...options, ...grouped, groupSize: half }))
    const values = layer.values.subarray(0, half * layer.columns)
    const top = decode(await quantize({ ...both, values, rows: half }, options))
    expect(whole.subarray(0, top.length)).toEqual(top)
  })

  it('groups that the shape does not divide: the last is smaller', async () => {
    const nine = await quantize(layer, { ...grouped, groupSize: 4 })
    expect(nine.stages[0].grid).toMatchObject({ blocks: { rows: 4, columns: 32 } })
    const whole = await quantize(layer, { ...grouped, groupSize: 100 })
    expect(equalMatrices(whole, await quantize(layer, {}))).toBe(true)
  })

  it('gradients of zero: all weights count the same', async () => {
    const { values, rows, columns } = layer
    const fisher = values.map(() => 0)
    const decoded = decode(
      await quantize({ values, rows, columns, fisher }, { mode: 'sensitive', bits: 6 }),
    )
    const plain = decode(await quantize({ values, rows, columns }, { importance: 'none', bits: 6 }))
    expect(decoded).toEqual(plain)
  })

  it('a layer that never saw an input', async () => {
    const hessian = layer.hessian.map(() => 0)
    const decoded = decode(await quantize({ ...layer, hessian }, { bits: 6 }))
    decoded.forEach((x, i) => {
      expect(Math.abs(x - layer.values[i])).toBeLessThan(0.02)
    })
  })

  it.each<[string, Layer, Parameters<typeof palettize>[0], RegExp]>([
    ['no Hessian', { ...layer, hessian: undefined }, {}, /needs the Hessian.*tensor w/],
    ['a Hessian of another size', { ...layer, hessian: new Float32Array(0) }, {}, /./],
    ['training without a Hessian', { ...layer, hessian: undefined }, { mode: 'dkm' }, /Hessian/],
    ['no Fisher', { ...layer, fisher: undefined }, { mode: 'sensitive' }, /Fisher.*tensor w/],
    ['too many values', layer, { mode: 'unique' }, /more than 256 different/],
  ])('%s is refused', async (_, broken, options, message) => {
    await expect(quantize(broken, options)).rejects.toThrow(message)
  })

  it('Fisher information of NaN or of another shape is refused by the name of the tensor', async () => {
    const fisher = layer.fisher.slice()
    fisher[3] = Number.NaN
    await expect(quantize({ ...layer, fisher }, { mode: 'sensitive' })).rejects.toThrow(
      /Fisher.*NaN.*tensor w/,
    )
  })

  it('a function that makes no table is refused', async () => {
    for (const made of [[], [Number.NaN], new Array(300).fill(0)]) {
      await expect(quantize(layer, { mode: 'custom', table: () => made })).rejects.toThrow(
        /table|256/,
      )
    }
  })

  it.each([
    [{ bits: 5 }, /one of 1, 2, 3, 4, 6, 8/],
    [{ bits: 4, mode: 'unique' }, /finds the number of bits/],
    [{ mode: 'custom' }, /function/],
    [{ table: () => [1] }, /mode custom/],
    [{ groupSize: 8 }, /per-grouped-channel/],
    [{ axis: 1 }, /per-grouped-channel/],
    [{ ...grouped, axis: 1, perChannelScale: true }, /axis 0/],
    [{ mode: 'unique', outliers: 0.01 }, /unique/],
    [{ outliers: 2 }, /outliers/],
    [{ mode: 'dkm', ...grouped, axis: 1 }, /axis 0/],
    [{ mode: 'dkm', clusterDim: 2 }, /mode dkm/],
    [{ mode: 'dkm', temperature: 0 }, /temperature/],
  ])('contradicting options %o', (options, message) => {
    expect(() => palettize(options as never)).toThrow(message)
  })
})

describe('against all divisions of small inputs', () => {
  /** The least Σ h·(w − value)² over every choice of a cluster for every weight. */
  function exhaustive(w: number[], h: number[], clusters: number): number {
    let least = Number.POSITIVE_INFINITY
    for (let choice = 0; choice < clusters ** w.length; choice++) {
      const [s0, s1, s2] = [0, 1, 2].map(() => new Array(clusters).fill(0))
      for (let i = 0, rest = choice; i < w.length; i++, rest = Math.floor(rest / clusters)) {
        const c = rest % clusters
        s0[c] += h[i]
        s1[c] += h[i] * w[i]
        s2[c] += h[i] * w[i] ** 2
      }
      const loss = s0.reduce((sum, n, c) => sum + (n > 0 ? s2[c] - s1[c] ** 2 / n : 0), 0)
      least = Math.min(least, loss)
    }
    return least
  }

  it.each([2, 4])('%d values', async (entries) => {
    for (let seed = 0; seed < 8; seed++) {
      const random = seededRandom(seed)
      const n = entries === 2 ? 10 : 7
      const values = Float32Array.from({ length: n }, () => Math.round(random() * 200) / 64)
      const h = Float32Array.from(values, () => 0.05 + random() ** 2)
      const hessian = new Float32Array(n * n)
      h.forEach((x, i) => {
        hessian[i * n + i] = x
      })
      const layer = { values, rows: 1, columns: n, hessian }
      const options = { bits: Math.log2(entries), feedback: false, tableType: 'f32' } as const
      const matrix = await quantize(layer, options)
      const decoded = decode(matrix)
      const loss = values.reduce((sum, x, i) => sum + h[i] * (x - decoded[i]) ** 2, 0)
      const least = exhaustive([...values], [...h], entries)
      expect(Math.abs(loss - least)).toBeLessThan(1e-6)
      expect(unpackCodes(matrix.stages[0].codes).length).toBe(n)
    }
  })
})
