/**
 * (H + damping·1)⁻¹ = UᵀU with U upper triangular. Let G be H with its order reversed. From its
 * Cholesky factor G = RᵀR (R upper) and V = R⁻¹ (upper): G⁻¹ = V·Vᵀ; reversing back turns V into a
 * lower triangle whose transpose is U. One factorization and one triangular inverse, instead of the
 * usual two and one. Blocks of 64: the diagonal ones in f64, everything else as f32 products.
 */

import type { Device } from '../device.ts'
import { writeSource } from '../weights/source.ts'
import { product } from './product.ts'

const BLOCK = 64

/** `order`: address of a permutation, or 0. False where a pivot is not positive. */
export function factorInverse(
  device: Device,
  out: number,
  hessian: number,
  n: number,
  damping: number,
  order: number,
): boolean {
  const stride = n * 4
  const r = device.room('factor', n * stride)
  const v = device.room('inverse', n * stride)
  const diagonals = device.room('diagonals', Math.ceil(n / BLOCK) * BLOCK * BLOCK * 4)
  const doubles = device.room('doubles', BLOCK * BLOCK * 8)
  const at = (matrix: number, row: number, column: number) => matrix + row * stride + column * 4
  const columnsFrom = (data: number, columns: number, depth: number) =>
    writeSource(device.memory, { kind: 'columns', data, stride, rows: columns, depth })

  device.run('reverse', n * n, r, hessian, n, order, damping)
  for (let i = 0; i < n; i += BLOCK) {
    const size = Math.min(BLOCK, n - i)
    const d = diagonals + i * BLOCK * 4
    if (!device.run('factorBlock', 0, at(r, i, i), stride, size, d, doubles)) return false
    const next = i + size
    const rest = n - next
    if (rest === 0) break
    // The rest of the block row: R₁₂ = R₁₁⁻ᵀ·G₁₂, in place, since the left side is D.
    product(device, {
      ...{ out: at(r, i, next), outStride: stride, left: d, leftStride: size * 4, rows: size },
      ...{ source: columnsFrom(at(r, i, next), rest, size), columns: rest, depth: size },
    })
    // What is left: G₂₂ −= R₁₂ᵀ·R₁₂, the upper triangle.
    product(device, {
      ...{ out: at(r, next, next), outStride: stride, left: at(r, i, next), leftStride: stride },
      ...{ leftTransposed: true, rows: rest, columns: rest, depth: size, factor: -1 },
      ...{ source: columnsFrom(at(r, i, next), rest, size), accumulate: true, shape: 'upper' },
    })
  }
  // Chunks of columns need not end where blocks do, so V's lower triangle is read: as zeros.
  device.memory.u8.fill(0, v, v + n * stride)
  // V from the last block row up: V_ii = D_iᵀ, V_i,rest = −V_ii · (R_i,rest · V_rest).
  for (let i = Math.floor((n - 1) / BLOCK) * BLOCK; i >= 0; i -= BLOCK) {
    const size = Math.min(BLOCK, n - i)
    const d = diagonals + i * BLOCK * 4
    device.run('transposeBlock', 0, at(v, i, i), stride, d, size)
    const next = i + size
    const rest = n - next
    if (rest === 0) continue
    product(device, {
      ...{ out: at(v, i, next), outStride: stride, left: at(r, i, next), leftStride: stride },
      ...{ rows: size, source: columnsFrom(at(v, next, next), rest, rest), columns: rest },
      ...{ depth: rest, shape: 'upperRight' },
    })
    product(device, {
      ...{ out: at(v, i, next), outStride: stride, left: d, leftStride: size * 4, rows: size },
      ...{ leftTransposed: true, factor: -1, columns: rest, depth: size },
      ...{ source: columnsFrom(at(v, i, next), rest, size) },
    })
  }
  device.run('antiTranspose', n * n, out, v, n)
  return true
}
