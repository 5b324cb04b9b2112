import { type CacheGrid, codeColumns, HALVES, scaleColumns } from '@lowbit/core'
import { describe, expect, it } from 'vitest'
import type { CpuKernels } from '../cpu.ts'
import { error, everyBuild, normals, seeded, using, withThreads } from '../plain-loops.ts'

const rowsOf = (x: Float32Array, columns: number): number[][] =>
  Array.from({ length: x.length / columns }, (_, i) => [
    ...x.subarray(i * columns, (i + 1) * columns),
  ])

function plainSoftmax(x: number[]): number[] {
  const most = Math.max(...x)
  const e = x.map((value) => Math.exp(value - most))
  const sum = e.reduce((a, b) => a + b)
  return e.map((value) => value / sum)
}

describe.each(everyBuild)('decoder operations, %j', (options) => {
  const shapes = [
    [1, 1],
    [3, 7],
    [2, 64],
    [150, 61],
  ]

  async function each(
    work: (kernels: CpuKernels, x: Float32Array, rows: number, columns: number) => Promise<void>,
  ): Promise<void> {
    await using(options, async (kernels) => {
      for (const [rows, columns] of shapes) {
        await work(kernels, normals(seeded(columns), rows * columns, 3), rows, columns)
      }
    })
  }

  it('normalizes', () =>
    each(async (kernels, x, rows, columns) => {
      const gain = normals(seeded(1), columns)
      const bias = normals(seeded(2), columns)
      const input = kernels.upload(x, rows, columns)
      const out = kernels.tensor(rows, columns)
      const [g, b] = [kernels.upload(gain, 1, columns), kernels.upload(bias, 1, columns)]
      kernels.rmsNorm(out, input, g, 1e-5)
      const rms = rowsOf(x, columns).flatMap((row) => {
        const f = 1 / Math.sqrt(row.reduce((s, v) => s + v * v, 0) / columns + 1e-5)
        return row.map((v, i) => v * f * gain[i])
      })
      expect(error(await kernels.read(out), rms)).toBeLessThan(1e-6)
      for (const given of [undefined, b]) {
        kernels.layerNorm(out, input, g, given, 1e-5)
        const layer = rowsOf(x, columns).flatMap((row) => {
          const mean = row.reduce((s, v) => s + v, 0) / columns
          const variance = row.reduce((s, v) => s + (v - mean) ** 2, 0) / columns
          const f = 1 / Math.sqrt(variance + 1e-5)
          return row.map((v, i) => (v - mean) * f * gain[i] + (given ? bias[i] : 0))
        })
        expect(error(await kernels.read(out), layer)).toBeLessThan(2e-6)
      }
    }))

  it('adds', () =>
    each(async (kernels, x, rows, columns) => {
      const y = normals(seeded(4), rows * columns)
      const out = kernels.upload(x, rows, columns)
      kernels.add(out, kernels.upload(y, rows, columns))
      const sum = x.map((v, i) => v + y[i])
      expect(await kernels.read(out)).toEqual(sum)
      kernels.add(out, kernels.upload(y.slice(0, columns), 1, columns))
      expect(await kernels.read(out)).toEqual(sum.map((v, i) => v + y[i % columns]))
    }))

  it('activates', () =>
    each(async (kernels, x, rows, columns) => {
      const up = normals(seeded(4), rows * columns)
      const erf = (z: number) => {
        // Σ (−1)^n z^(2n+1) / (n!·(2n+1)); ±1 far out
        if (Math.abs(z) > 5) return Math.sign(z)
        let [sum, term] = [0, z]
        for (let n = 0; n < 120; n++) {
          sum += term / (2 * n + 1)
          term *= -(z * z) / (n + 1)
        }
        return (sum * 2) / Math.sqrt(Math.PI)
      }
      const kinds = {
        silu: (v: number) => v / (1 + Math.exp(-v)),
        gelu: (v: number) =>
          0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))),
        gelu_erf: (v: number) => 0.5 * v * (1 + erf(v / Math.SQRT2)),
        relu: (v: number) => Math.max(0, v),
      }
      for (const [kind, act] of Object.entries(kinds)) {
        const gate = kernels.upload(x, rows, columns)
        const out = kernels.tensor(rows, columns)
        kernels.activate(out, gate, undefined, kind as keyof typeof kinds)
        expect(error(await kernels.read(out), Array.from(x, act)), kind).toBeLessThan(1e-6)
        kernels.activate(gate, gate, kernels.upload(up, rows, columns), kind as keyof typeof kinds)
        const both = Array.from(x, (v, i) => act(v) * up[i])
        expect(error(await kernels.read(gate), both), kind).toBeLessThan(1e-6)
      }
    }))

  it('rotates positions', async () => {
    await using(options, async (kernels) => {
      for (const size of [2, 6, 8, 64]) {
        const [rows, heads, start, half] = [5, 3, 4, size / 2]
        const columns = heads * size
        const x = normals(seeded(size), rows * columns)
        const angles = normals(seeded(3), (start + rows) * half)
        const cos = angles.map(Math.cos)
        const sin = angles.map(Math.sin)
        const out = kernels.upload(x, rows, columns)
        const table = (values: Float32Array) => kernels.upload(values, start + rows, half)
        kernels.rope(out, table(cos), table(sin), size, start)
        const expected = x.map((value, at) => {
          const [row, i] = [Math.floor(at / columns), (at % columns) % size]
          const angle = (start + row) * half + (i % half)
          return i < half
            ? value * cos[angle] - x[at + half] * sin[angle]
            : value * cos[angle] + x[at - half] * sin[angle]
        })
        expect(error(await kernels.read(out), expected)).toBeLessThan(1e-6)
      }
    })
  })

  it('attends', async () => {
    await using(options, async (kernels) => {
      for (const [rows, start, heads, keyValueHeads, headSize, spare] of [
        [1, 0, 1, 1, 4, 0],
        [1, 37, 4, 2, 64, 3],
        [5, 9, 3, 3, 10, 0],
        [6, 0, 2, 1, 16, 1],
        [50, 0, 4, 2, 64, 0],
        [60, 70, 3, 1, 20, 7],
        [130, 5, 2, 2, 100, 0],
      ]) {
        const scale = 1 / Math.sqrt(headSize)
        const [width, keyWidth] = [heads * headSize, keyValueHeads * headSize]
        const keys = start + rows + spare
        const random = seeded(rows)
        const q = normals(random, rows * width)
        const [k, v] = [normals(random, keys * keyWidth), normals(random, keys * keyWidth)]
        const out = kernels.tensor(rows, width)
        kernels.attention(
          out,
          kernels.upload(q, rows, width),
          kernels.upload(k, keys, keyWidth),
          kernels.upload(v, keys, keyWidth),
          { heads, keyValueHeads, headSize, scale, start },
        )
        const expected = new Float32Array(rows * width)
        for (let row = 0; row < rows; row++) {
          for (let head = 0; head < heads; head++) {
            const shift = Math.floor(head / (heads / keyValueHeads)) * headSize
            const at = row * width + head * headSize
            const scores = Array.from({ length: start + row + 1 }, (_, key) => {
              let sum = 0
              for (let i = 0; i < headSize; i++) sum += q[at + i] * k[key * keyWidth + shift + i]
              return sum * scale
            })
            plainSoftmax(scores).forEach((p, key) => {
              for (let i = 0; i < headSize; i++)
                expected[at + i] += p * v[key * keyWidth + shift + i]
            })
          }
        }
        expect(error(await kernels.read(out), expected), `${rows} rows`).toBeLessThan(3e-6)
      }
    })
  })

  it('measures logits', () =>
    each(async (kernels, x, rows, columns) => {
      const other = normals(seeded(11), rows * columns, 3)
      const targets = Uint32Array.from({ length: rows }, (_, i) => (i * 7) % columns)
      const [a, b] = [kernels.upload(x, rows, columns), kernels.upload(other, rows, columns)]
      const out = kernels.tensor(rows, 1)
      const p = rowsOf(x, columns).map(plainSoftmax)
      const q = rowsOf(other, columns).map(plainSoftmax)
      kernels.crossEntropy(out, a, targets)
      const entropy = p.map((row, i) => -Math.log(row[targets[i]]))
      expect(error(await kernels.read(out), entropy)).toBeLessThan(2e-6)
      kernels.divergence(out, a, b)
      const kl = p.map((row, i) => row.reduce((s, v, j) => s + v * Math.log(v / q[i][j]), 0))
      const actual = await kernels.read(out)
      for (let i = 0; i < rows; i++)
        expect(Math.abs(actual[i] - kl[i])).toBeLessThan(2e-6 * (1 + kl[i]))
      kernels.softmax(a)
      expect(error(await kernels.read(a), p.flat())).toBeLessThan(1e-6)
    }))
})

it('has an exponential good to two units in the last place', async () => {
  const columns = 4001
  await using({ threads: 1 }, async (kernels) => {
    // Two logits a row: softmax gives e^x / (1 + e^x), here with x far below 0.
    const x = Float32Array.from({ length: columns }, (_, i) => -20 - i / 61)
    const pairs = Float32Array.from({ length: 2 * columns }, (_, i) => (i % 2 ? x[i >> 1] : 0))
    const input = kernels.upload(pairs, columns, 2)
    kernels.softmax(input)
    const out = await kernels.read(input)
    for (let i = 0; i < columns; i++) {
      const expected = Math.exp(x[i])
      if (expected < 1.2e-38) continue
      expect(Math.abs(out[2 * i + 1] / expected - 1)).toBeLessThan(2.5e-7)
    }
  })
})

it('samples', async () => {
  await using({ threads: 1 }, async (kernels) => {
    const logits = kernels.upload(Float32Array.of(1, 3, 2, 3, -5), 1, 5)
    const draw = (temperature: number, topK: number, topP: number, random: number) =>
      kernels.sample(logits, { temperature, topK, topP, random })
    expect(await draw(0, 0, 1, 0.9)).toBe(1)
    expect(await draw(1, 2, 1, 0.49)).toBe(1)
    expect(await draw(1, 2, 1, 0.51)).toBe(3)
    expect(await draw(1, 0, 0.5, 0.99)).toBe(3)
    expect(await draw(1, 0, 1, 0.999999)).toBe(4)
    expect(await draw(1, 0, 0.01, 0.99)).toBe(1)
  })
})

it('gives the same bits for any number of threads', async () => {
  const results = await withThreads(async (kernels) => {
    const random = seeded(20)
    const shape = { heads: 6, keyValueHeads: 3, headSize: 32, scale: 0.2, start: 10 }
    const q = kernels.upload(normals(random, 120 * 192), 120, 192)
    const k = kernels.upload(normals(random, 130 * 96), 130, 96)
    const out = kernels.tensor(120, 192)
    kernels.attention(out, q, k, k, shape)
    kernels.activate(q, q, out, 'gelu_erf')
    kernels.softmax(q)
    const gradients = {
      q: kernels.tensor(120, 192),
      k: kernels.tensor(130, 96),
      v: kernels.tensor(130, 96),
    }
    kernels.attentionGradient(gradients, out, q, k, k, shape)
    const sums = { input: out, gain: kernels.tensor(1, 192), bias: kernels.tensor(1, 192) }
    kernels.normGradient(sums, q, gradients.q, kernels.rows(q, 3, 4), {
      kind: 'layer',
      epsilon: 1e-5,
    })
    kernels.multiplyTransposed(gradients.q, q, kernels.upload(normals(random, 192 * 192), 192, 192))
    const all = [...Object.values(gradients), ...Object.values(sums), q]
    return Promise.all(all.map((each) => kernels.read(each)))
  })
  expect(results[1]).toEqual(results[0])
  expect(results[2]).toEqual(results[0])
})

it('attends over codes with the same bits for any number of threads, with a single head of keys too', async () => {
  const [coded, before, headSize] = [776, 40, 64]
  const grids: readonly CacheGrid[] = [
    HALVES,
    { bits: 4, tokens: 1, channels: 32, symmetric: false },
    { bits: 4, tokens: 8, channels: 1, symmetric: false },
    { bits: 8, tokens: 1, channels: 16, symmetric: true },
  ]
  const results = await withThreads(async (kernels) => {
    const outputs: Float32Array[] = []
    for (const grid of grids) {
      for (const keyValueHeads of [1, 3]) {
        const width = keyValueHeads * headSize
        const random = seeded(21)
        const rowsOf = (rows: number, columns: number) =>
          kernels.upload(normals(random, rows * columns), rows, columns)
        const past = {
          grid,
          codes: kernels.tensor(coded, codeColumns(grid, width), 'u32'),
          scales: kernels.tensor(coded / grid.tokens, scaleColumns(grid, width), 'u16'),
        }
        kernels.encodeRows(past, 0, rowsOf(coded, width))
        const [q, k] = [rowsOf(2, 3 * width), rowsOf(before + 2, width)]
        const out = kernels.tensor(2, 3 * width)
        const start = coded + before
        const shape = { heads: 3 * keyValueHeads, keyValueHeads, headSize, scale: 0.125, start }
        kernels.attendCoded(out, q, past, past, coded, k, k, shape)
        outputs.push(await kernels.read(out))
      }
    }
    return outputs
  })
  expect(results[1]).toEqual(results[0])
  expect(results[2]).toEqual(results[0])
})
