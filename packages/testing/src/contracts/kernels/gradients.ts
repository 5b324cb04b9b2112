/** The operations backward: against the reference, and against differences of the operations themselves. */

import { type Activation, type NormKind, seededRandom } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomIntegers, randomValues } from '../../random.ts'
import { ODD_SHAPES } from '../../samples/matrices.ts'
import { type BenchOf, expectClose, expectNear, expectRefusal, type Side } from './bench.ts'

const KINDS: readonly Activation[] = ['silu', 'gelu', 'gelu_erf', 'relu']

export function gradientContract(open: BenchOf, it: Declare): void {
  it.each([
    [1, 1, 1],
    [1, 7, 3],
    [5, 33, 17],
    [37, 70, 66],
    [3, 300, 130],
  ])('multiplyTransposed: %i × %i by %i, and added', async (t, k, n) => {
    const random = seededRandom(t)
    const [a, b, start] = [t * k, k * n, t * n].map((size) => randomValues(size, random))
    const [actual, expected] = await open().both(async ({ kernels, up }) => {
      const [plain, added] = [up(start, t, n), up(start, t, n)]
      kernels.multiplyTransposed(plain, up(a, t, k), up(b, k, n))
      kernels.multiplyTransposed(added, up(a, t, k), up(b, k, n), { accumulate: true })
      return [await kernels.read(plain), await kernels.read(added)]
    })
    for (const i of actual.keys()) expectClose(actual[i], expected[i], `product ${i}`)
  })

  it.each(['rms', 'layer'] as const)('normGradient: %s', async (kind) => {
    for (const [rows, n] of [...ODD_SHAPES, [3, 513] as const]) {
      if (kind === 'layer' && n === 1) continue
      const random = seededRandom(n)
      const [x, dy, start] = [0, 1, 2].map(() => randomValues(rows * n, random))
      const gain = randomValues(n, random)
      for (const size of [1e-2, 1, 1e4]) {
        const scaled = x.map((value) => value * size)
        const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
          const gradients = { input: up(start, rows, n), gain: up(gain, 1, n), bias: zeros(1, n) }
          const [out, input] = [up(dy, rows, n), up(scaled, rows, n)]
          kernels.normGradient(gradients, out, input, up(gain, 1, n), { kind, epsilon: 1e-5 })
          kernels.normGradient({ input: gradients.input }, out, input, up(gain, 1, n), {
            ...{ kind, epsilon: 1e-5 },
          })
          return Promise.all(Object.values(gradients).map((each) => kernels.read(each)))
        })
        for (const i of actual.keys()) {
          expectClose(actual[i], expected[i], `${rows} × ${n}, ${size}, gradient ${i}`, 3e-5)
        }
      }
    }
  })

  it('of a norm of zeros is finite', async () => {
    const { kernels, up, zeros } = open()
    for (const kind of ['rms', 'layer'] as const) {
      const input = zeros(2, 5)
      const ones = up(new Float32Array(10).fill(1), 2, 5)
      const gain = up(new Float32Array(5).fill(1), 1, 5)
      kernels.normGradient({ input }, ones, zeros(2, 5), gain, { kind, epsilon: 1e-4 })
      const level = kind === 'rms' ? 100 : 0
      expectClose(await kernels.read(input), new Array(10).fill(level), kind, 1e-5)
    }
  })

  it.each(KINDS)('activateGradient: %s', async (kind) => {
    const steep = [-1e30, -200, -89, -20, -1e-8, 1e-8, 20, 89, 200, 1e30]
    const gate = Float32Array.from([...randomValues(1035, seededRandom(1), 3), ...steep])
    const n = gate.length
    const [dy, factor] = [2, 3].map((seed) => randomValues(n, seededRandom(seed)))
    for (const other of [undefined, factor]) {
      const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
        const [g, u, d] = [up(gate, 1, n), other && up(other, 1, n), up(dy, 1, n)]
        const apart = { gate: zeros(1, n), up: other && zeros(1, n) }
        kernels.activateGradient(apart, d, g, u, kind)
        // Over what is read, crosswise.
        const over = { gate: u ?? d, up: u && g }
        kernels.activateGradient(over, d, g, u, kind)
        const all = [apart.gate, over.gate, ...(apart.up && over.up ? [apart.up, over.up] : [])]
        return Promise.all(all.map((each) => kernels.read(each)))
      })
      for (let i = 0; i < actual.length; i += 2) {
        expect(actual[i + 1], 'in place').toEqual(actual[i])
        for (let at = 0; at < n; at++) {
          const should = expected[i][at]
          const bound = 1e-5 * Math.abs(should) + 3e-6
          expectNear(actual[i][at], should, bound, `${kind}′(${gate[at]})`)
        }
      }
    }
  })

  it.each([
    [1, 0, 1, 1, 4],
    [7, 0, 4, 4, 8],
    [5, 3, 4, 2, 16],
    [1, 40, 6, 2, 10],
    [33, 5, 8, 1, 32],
    [101, 70, 2, 1, 64],
    [50, 0, 3, 3, 70],
  ])('attentionGradient: %i rows from %i on, %i heads on %i of size %i', async (...numbers) => {
    const [rows, start, heads, keyValueHeads, headSize] = numbers
    const random = seededRandom(rows + start)
    const [width, keyWidth] = [heads * headSize, keyValueHeads * headSize]
    // Room for more than has been seen; what lies there must not matter.
    const length = start + rows + 3
    const [q, dy] = [0, 1].map(() => randomValues(rows * width, random))
    const [k, v] = [0, 1].map(() => randomValues(length * keyWidth, random))
    k.fill(Number.NaN, (start + rows) * keyWidth)
    v.fill(Number.NaN, (start + rows) * keyWidth)
    const shape = { heads, keyValueHeads, headSize, scale: 1 / Math.sqrt(headSize), start }
    const [actual, expected] = await open().both(({ kernels, up }) => {
      const nine = (n: number, columns: number) =>
        up(new Float32Array(n * columns).fill(9), n, columns)
      const gradients = {
        ...{ q: nine(rows, width), k: nine(length, keyWidth), v: nine(length, keyWidth) },
      }
      const [out, query] = [up(dy, rows, width), up(q, rows, width)]
      const [key, value] = [up(k, length, keyWidth), up(v, length, keyWidth)]
      kernels.attentionGradient(gradients, out, query, key, value, shape)
      return Promise.all(Object.values(gradients).map((each) => kernels.read(each)))
    })
    for (const [i, name] of ['q', 'k', 'v'].entries()) {
      expectClose(actual[i], expected[i], `gradient of ${name}`, 2e-5)
    }
  })

  it('crossEntropyGradient and divergenceGradient', async () => {
    for (const [rows, n] of [...ODD_SHAPES, [3, 2050] as const]) {
      const random = seededRandom(n)
      const targets = randomIntegers(rows, n, random)
      for (const size of [0.1, 5, 1000]) {
        const logits = randomValues(rows * n, random, size)
        const near = logits.map((value) => value + size * 0.01 * random())
        const [actual, expected] = await open().both(async ({ kernels, up, zeros }) => {
          const [x, other] = [up(logits, rows, n), up(near, rows, n)]
          const [loss, distance] = [zeros(rows, n), zeros(rows, n)]
          kernels.crossEntropyGradient(loss, x, targets, 0.5)
          kernels.divergenceGradient(distance, other, x, 0.5)
          kernels.crossEntropyGradient(x, x, targets, 0.5)
          kernels.divergenceGradient(other, up(near, rows, n), other, 0.5)
          return Promise.all([loss, x, distance, other].map((each) => kernels.read(each)))
        })
        const slack = 1e-5 + 1e-6 * size
        expect(actual[1], 'in place').toEqual(actual[0])
        for (const i of [0, 2]) {
          for (const [at, should] of expected[i].entries()) {
            expectNear(actual[i][at], should, slack, `${i === 0 ? 'entropy' : 'KL'} of ${size}`)
          }
        }
        expect(
          [...actual[3]].every((value) => Math.abs(value) < 1e-6),
          'KL of equals',
        ).toBe(true)
      }
    }
  })

  it('agree with differences of the operations', async () => {
    const [rows, heads, keyValueHeads, headSize] = [6, 4, 2, 6]
    const [width, keyWidth] = [heads * headSize, keyValueHeads * headSize]
    const shape = { heads, keyValueHeads, headSize, scale: 0.4, start: 0 }
    const random = seededRandom(9)
    const values = (n: number) => randomValues(rows * n, random)
    await differs(
      open(),
      [values(width), values(keyWidth), values(keyWidth)],
      rows,
      values(width),
      {
        forward: ({ kernels }, out, [q, k, v]) => kernels.attention(out, q, k, v, shape),
        backward({ kernels }, dy, [q, k, v], [dq, dk, dv]) {
          kernels.attentionGradient({ q: dq, k: dk, v: dv }, dy, q, k, v, shape)
        },
      },
    )
    for (const kind of KINDS) {
      await differs(open(), [values(9), values(9)], rows, values(9), {
        forward: ({ kernels }, out, [gate, up]) => kernels.activate(out, gate, up, kind),
        backward({ kernels }, dy, [gate, up], [dGate, dUp]) {
          kernels.activateGradient({ gate: dGate, up: dUp }, dy, gate, up, kind)
        },
      })
    }
    for (const kind of ['rms', 'layer'] satisfies NormKind[]) {
      const gain = randomValues(9, random)
      await differs(open(), [values(9)], rows, values(9), {
        forward({ kernels, up }, out, [x]) {
          if (kind === 'rms') kernels.rmsNorm(out, x, up(gain, 1, 9), 1e-5)
          else kernels.layerNorm(out, x, up(gain, 1, 9), undefined, 1e-5)
        },
        backward({ kernels, up }, dy, [x], [input]) {
          kernels.normGradient({ input }, dy, x, up(gain, 1, 9), { kind, epsilon: 1e-5 })
        },
      })
    }
    const targets = randomIntegers(rows, 9, random)
    const reference = values(9)
    await differs(open(), [values(9)], rows, randomValues(rows, random).fill(1), {
      forward: ({ kernels }, out, [logits]) => kernels.crossEntropy(out, logits, targets),
      backward: ({ kernels }, _, [logits], [d]) => {
        kernels.crossEntropyGradient(d, logits, targets, 1)
      },
    })
    await differs(open(), [values(9)], rows, randomValues(rows, random).fill(1), {
      forward: ({ kernels, up }, out, [x]) => kernels.divergence(out, up(reference, rows, 9), x),
      backward: ({ kernels, up }, _, [x], [d]) => {
        kernels.divergenceGradient(d, up(reference, rows, 9), x, 1)
      },
    })
  })

  it('shapes that do not fit are LowbitErrors', async () => {
    const { kernels, zeros } = open()
    const [x, gain] = [zeros(2, 4), zeros(1, 4)]
    await expectRefusal('multiplyTransposed', () =>
      kernels.multiplyTransposed(zeros(2, 3), zeros(2, 4), zeros(3, 3)),
    )
    await expectRefusal('norm', () =>
      kernels.normGradient({ input: zeros(2, 3) }, x, x, gain, { kind: 'rms', epsilon: 1 }),
    )
    await expectRefusal('norm gain', () =>
      kernels.normGradient({ input: zeros(2, 4), gain: zeros(1, 3) }, x, x, gain, {
        ...{ kind: 'rms', epsilon: 1 },
      }),
    )
    await expectRefusal('activate: up without its gradient', () =>
      kernels.activateGradient({ gate: zeros(2, 4) }, x, x, zeros(2, 4), 'silu'),
    )
    await expectRefusal('activate', () =>
      kernels.activateGradient({ gate: zeros(2, 3) }, x, x, undefined, 'silu'),
    )
    const shape = { heads: 2, keyValueHeads: 1, headSize: 2, scale: 1, start: 0 }
    const k = zeros(2, 2)
    await expectRefusal('attention', () =>
      kernels.attentionGradient({ q: zeros(2, 4), k: zeros(3, 2), v: k }, x, x, k, k, shape),
    )
    await expectRefusal('attention: too few keys', () =>
      kernels.attentionGradient({ q: zeros(2, 4), k, v: k }, x, x, k, k, { ...shape, start: 1 }),
    )
    await expectRefusal('a target that is no token', () =>
      kernels.crossEntropyGradient(x, x, Uint32Array.of(0, 4), 1),
    )
    await expectRefusal('divergence', () => kernels.divergenceGradient(x, zeros(2, 3), x, 1))
  })
}

type Tensors = ReturnType<Side['up']>[]

interface Both {
  forward(side: Side, out: Tensors[number], inputs: Tensors): void
  backward(side: Side, dy: Tensors[number], inputs: Tensors, gradients: Tensors): void
}

/**
 * Along a random direction e of the inputs x: (L(x + h·e) − L(x − h·e)) / 2h = gradient · e, with L the sum of the
 * outputs times `weights` [rows, n].
 */
async function differs(
  side: Side,
  inputs: readonly Float32Array[],
  rows: number,
  weights: Float32Array,
  { forward, backward }: Both,
): Promise<void> {
  const { kernels, up, zeros } = side
  const random = seededRandom(17)
  const directions = inputs.map(({ length }) => randomValues(length, random))
  const tensors = (h: number): Tensors =>
    inputs.map((x, i) => {
      const moved = x.map((value, at) => value + h * directions[i][at])
      return up(moved, rows, x.length / rows)
    })
  const n = weights.length / rows
  const loss = async (h: number): Promise<number> => {
    const out = zeros(rows, n)
    forward(side, out, tensors(h))
    return (await kernels.read(out)).reduce((sum, y, i) => sum + y * weights[i], 0)
  }
  const h = 2 ** -8
  const difference = ((await loss(h)) - (await loss(-h))) / (2 * h)
  const gradients = inputs.map((x) => zeros(rows, x.length / rows))
  backward(side, up(weights, rows, n), tensors(0), gradients)
  let along = 0
  for (const [i, tensor] of gradients.entries()) {
    for (const [at, d] of (await kernels.read(tensor)).entries()) along += d * directions[i][at]
  }
  expectNear(along, difference, 2e-3 * Math.max(1, Math.abs(difference)), 'slope')
}
