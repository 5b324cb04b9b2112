/** Which shaders are right and fastest here: found out once by running them, and kept where a place for it is given. */

import {
  decode,
  LowbitError,
  packCodes,
  perGroup,
  type QuantizedMatrix,
  seededRandom,
  unsignedGrid,
} from '@lowbit/core'
import { plain, product } from './algebra/product.ts'
import { type Choices, type Device, PLAIN } from './gpu/device.ts'
import { tensorOperations } from './tensors.ts'
import { weightOperations } from './weights/operations.ts'

/** Where choices are kept: `localStorage`, or what behaves alike. */
export interface ChoiceCache {
  getItem(key: string): string | null
  setItem(key: string, value: string): void
}

const SIZE = 512
/** Of each shader so many runs are timed at most, of which the fastest counts; slow ones stop after so many ms. */
const RUNS = 3
const ENOUGH = 250

const ways = {
  product: ['tiles', 'subgroups'],
  vector: ['words', 'subgroups'],
  matrix: ['tiles', 'subgroups'],
  vectorInt8: ['f32', 'dots'],
  matrixInt8: ['f32', 'dots'],
  matrixF16: ['f32', 'f16'],
} as const

/** What the other ways than the first need. */
const able = (name: keyof Choices, { subgroup, dots, halves }: Device): boolean =>
  name.endsWith('Int8') ? dots : name.endsWith('F16') ? halves : subgroup > 0

/** Choices as they were kept, or undefined where they are not or are no choices. */
export function keptChoices(cache: ChoiceCache | undefined, key: string): Choices | undefined {
  const text = cache?.getItem(key)
  if (!text) return undefined
  try {
    const found = JSON.parse(text) as Record<string, string>
    const whole = Object.entries(ways).every(([name, known]) =>
      (known as readonly string[]).includes(found[name]),
    )
    return whole ? (found as unknown as Choices) : undefined
  } catch {
    return undefined
  }
}

/** How far from the truth a way may be, of the norm. */
const apart = (way: string): number => ({ dots: 0.03, f16: 0.005 })[way] ?? 1e-4

/**
 * Runs dense products and products of int4 in every way there is. What computes wrong is not chosen; drivers do that,
 * and models that talk nonsense are how people find out.
 *
 * @throws LowbitError `bad-device` where no way is right
 */
export async function measureChoices(device: Device, adapter: string): Promise<Choices> {
  const { tensor, upload, read, rows, free } = tensorOperations(device)
  const { load, unload, matmul } = weightOperations(device)
  const random = seededRandom(1)
  const numbers = (): Float32Array =>
    Float32Array.from({ length: SIZE * SIZE }, () => random() - 0.5)
  const [x, y, int4] = [numbers(), numbers(), sample()]
  const [a, b, out] = [upload(x, SIZE, SIZE), upload(y, SIZE, SIZE), tensor(SIZE, SIZE)]
  const dense = decode(int4)
  const expected = {
    dense: firstRow(x, (k, n) => y[k * SIZE + n]),
    int4: firstRow(x, (k, n) => dense[n * SIZE + k]),
  }
  const weight = load(int4)
  const [inBytes, inHalves] = (['int8', 'f16'] as const).map((activations) =>
    load(int4, { activations }),
  )
  const span = (t: typeof a) => plain(t as never, SIZE)
  const works: Record<keyof Choices, () => void> = {
    product() {
      const sizes = { rows: SIZE, columns: SIZE, depth: SIZE }
      product(device, { out: span(out), a: span(a), b: span(b), ...sizes })
    },
    vector: () => matmul(rows(out, 0, 1), rows(a, 0, 1), weight),
    matrix: () => matmul(rows(out, 0, 64), rows(a, 0, 64), weight),
    vectorInt8: () => matmul(rows(out, 0, 1), rows(a, 0, 1), inBytes),
    matrixInt8: () => matmul(rows(out, 0, 64), rows(a, 0, 64), inBytes),
    matrixF16: () => matmul(rows(out, 0, 64), rows(a, 0, 64), inHalves),
  }
  // Each is measured with what was chosen before it.
  let chosen = PLAIN
  for (const [key, known] of Object.entries(ways)) {
    const name = key as keyof Choices
    let least = Number.POSITIVE_INFINITY
    let best: Choices | undefined
    // The first way is held against the truth even where there is no other.
    for (const way of able(name, device) ? known : known.slice(0, 1)) {
      const choices = { ...chosen, [name]: way }
      device.choices = choices
      const repeats = name.startsWith('vector') ? 16 : 1
      let spent = 0
      for (let run = 0; run <= RUNS && spent < ENOUGH; run++) {
        const started = performance.now()
        for (let i = 0; i < repeats; i++) works[name]()
        const found = await read(rows(out, 0, 1))
        const taken = performance.now() - started
        const right = expected[name === 'product' ? 'dense' : 'int4']
        if (!(distance(found, right) < apart(way))) break
        // The first run is that of the compiler.
        if (run === 0) continue
        spent += taken
        if (taken < least) {
          least = taken
          best = choices
        }
      }
    }
    if (!best) {
      throw new LowbitError(
        'bad-device',
        `${adapter} computes wrong products: update its driver, or choose the processor; \`lowbit doctor --device webgpu\` tells more`,
      )
    }
    chosen = best
  }
  for (const each of [weight, inBytes, inHalves]) unload(each)
  free(a, b, out)
  device.choices = PLAIN
  return chosen
}

/** The first row of x times a matrix. */
const firstRow = (x: Float32Array, at: (k: number, n: number) => number): Float32Array =>
  Float32Array.from({ length: SIZE }, (_, n) => {
    let sum = 0
    for (let k = 0; k < SIZE; k++) sum += x[k] * at(k, n)
    return sum
  })

/** ‖a − b‖ / ‖b‖ */
function distance(a: Float32Array, b: Float32Array): number {
  const norm = (values: Float32Array): number => Math.hypot(...values)
  return norm(a.map((value, i) => value - b[i])) / norm(b)
}

function sample(): QuantizedMatrix {
  const codes = Uint8Array.from({ length: SIZE * SIZE }, (_, i) => i & 15)
  return {
    ...{ rows: SIZE, columns: SIZE },
    stages: [
      {
        codes: packCodes(codes, 4),
        vector: { length: 1, along: 'in' },
        grid: unsignedGrid(4),
        scale: {
          blocks: perGroup(32),
          values: { type: 'f32', values: new Float32Array((SIZE * SIZE) / 32).fill(0.01) },
        },
      },
    ],
  }
}
