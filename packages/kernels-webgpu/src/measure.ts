/** Which shaders are fastest here: found out once by running them, and kept where a place for it is given. */

import { packCodes, perGroup, type QuantizedMatrix, unsignedGrid } from '@lowbit/core'
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
/** Of each shader so many runs are timed, of which the fastest counts. */
const RUNS = 3

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

/** Runs dense products and products of int4 in every way there is. */
export async function measureChoices(device: Device): Promise<Choices> {
  const { tensor, read, rows, free } = tensorOperations(device)
  const { load, unload, matmul } = weightOperations(device)
  const [a, b, out] = [tensor(SIZE, SIZE), tensor(SIZE, SIZE), tensor(SIZE, SIZE)]
  const weight = load(sample())
  const [inBytes, inHalves] = (['int8', 'f16'] as const).map((activations) =>
    load(sample(), { activations }),
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
    if (!able(name, device)) continue
    let least = Number.POSITIVE_INFINITY
    let best = chosen
    for (const way of known) {
      const choices = { ...chosen, [name]: way }
      device.choices = choices
      const repeats = name.startsWith('vector') ? 16 : 1
      for (let run = 0; run <= RUNS; run++) {
        const started = performance.now()
        for (let i = 0; i < repeats; i++) works[name]()
        await read(rows(out, 0, 1))
        const taken = performance.now() - started
        // The first run is that of the compiler.
        if (run > 0 && taken < least) {
          least = taken
          best = choices
        }
      }
    }
    chosen = best
  }
  for (const each of [weight, inBytes, inHalves]) unload(each)
  free(a, b, out)
  device.choices = PLAIN
  return chosen
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
