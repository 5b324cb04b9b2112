/** The inverse's triangular factor, in blocks of 32 columns: see kernels/algebra.cu. */

import type { Device, Span } from './driver/device.ts'
import { blocksOf } from './tensors.ts'

const SIZE = 32

/** Numbers of f32 from `at` on. */
const part = ({ address, bytes }: Span, at: number): Span => ({
  ...{ address: address + at * 4, bytes: bytes - at * 4 },
})

interface Product {
  readonly out: Span
  readonly a: Span
  readonly b: Span
  readonly rows: number
  readonly columns: number
  readonly depth: number
  readonly a_row: number
  readonly a_depth: number
  readonly b_depth: number
  readonly b_column: number
  readonly out_row: number
  readonly factor?: number
  readonly keep?: number
}

/** out[i, j] = factor · Σ_k a[i, k] · b[k, j]. */
export function product(device: Device, sizes: Product): void {
  const { rows, columns } = sizes
  const blocks = Math.ceil(rows / SIZE) * Math.ceil(columns / SIZE)
  device.run('product', { factor: 1, keep: 0, ...sizes }, blocks)
}

export async function factorInverse(
  device: Device,
  out: Span,
  h: Span,
  n: number,
  damping: number,
  order: Uint32Array | undefined,
): Promise<boolean> {
  const held: Span[] = []
  const room = (numbers: number): Span => {
    held.push(device.allocate(numbers * 4))
    return held[held.length - 1]
  }
  const count = n * n
  const blocks = Math.ceil(n / SIZE)
  try {
    const [a, l, x] = [room(count), room(count), room(count)]
    const [inverses, row, bad] = [room(blocks * SIZE * SIZE), room(SIZE * n), room(1)]
    const places = order && room(n)
    if (places) device.write(places, order)
    const shared = { h, order: places, a, bad, n, damping }
    device.zero(bad)
    device.zero(x)
    const whole = { ...shared, count, begin: 0, size: 0 }
    device.run('factor_prepare', whole, blocksOf(count))
    for (let block = 0; block < blocks; block++) {
      const begin = block * SIZE
      const size = Math.min(SIZE, n - begin)
      const rest = n - begin - size
      const inverse = part(inverses, block * SIZE * SIZE)
      device.run('factor_diagonal', { ...shared, inverse, count: 0, begin, size }, 1)
      const placed = { inverse, x, count: size * size, n, begin, size }
      device.run('factor_place', placed, blocksOf(size * size))
      if (rest === 0) continue
      // The panel below, L₂₁ = A₂₁·L₁₁⁻ᵀ, and A₂₂ −= L₂₁·L₂₁ᵀ.
      const below = (begin + size) * n + begin
      product(device, {
        ...{ out: part(l, below), a: part(a, below), b: inverse, out_row: n },
        ...{ rows: rest, columns: size, depth: size },
        ...{ a_row: n, a_depth: 1, b_depth: 1, b_column: SIZE },
      })
      product(device, {
        ...{ out: part(a, below + size), a: part(l, below), b: part(l, below), out_row: n },
        ...{ rows: rest, columns: rest, depth: size, factor: -1, keep: 1 },
        ...{ a_row: n, a_depth: 1, b_depth: 1, b_column: n },
      })
    }
    // Row of blocks i of X = L⁻¹, left of its diagonal: −L_ii⁻¹ · (L_i · X above).
    for (let block = 1; block < blocks; block++) {
      const begin = block * SIZE
      const size = Math.min(SIZE, n - begin)
      const plain = { rows: size, columns: begin, a_depth: 1, b_depth: n, b_column: 1, out_row: n }
      const left = { a: part(l, begin * n), b: x, a_row: n, depth: begin }
      product(device, { ...plain, ...left, out: row })
      const inverse = part(inverses, block * SIZE * SIZE)
      const right = { a: inverse, b: row, a_row: SIZE, depth: size, factor: -1 }
      product(device, { ...plain, ...right, out: part(x, begin * n) })
    }
    device.run('factor_finish', { x, out, bad, count, n }, blocksOf(count))
    const found = new Uint32Array(1)
    await device.read(bad, found)
    return found[0] === 0
  } finally {
    for (const span of held) device.release(span)
  }
}
