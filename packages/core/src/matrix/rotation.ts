/** Randomized Hadamard rotations of a dense matrix, in place. */

import type { Rotation } from './types.ts'

const sign = (rotation: Rotation, i: number): number =>
  (rotation.signs[i >> 3] >> (i & 7)) & 1 ? -1 : 1

/** W ← W · R with R = H·diag(signs) in blocks: the input x of the layer is rotated by R first. */
export function rotateColumns(
  w: Float32Array,
  rows: number,
  columns: number,
  rotation: Rotation,
): void {
  const { block } = rotation
  for (let row = 0; row < rows; row++) {
    for (let from = 0; from < columns; from += block) {
      hadamard(w, row * columns + from, 1, block)
      for (let i = 0; i < block; i++) w[row * columns + from + i] *= sign(rotation, from + i)
    }
  }
}

/** W ← Rᵀ · W: the layer's output is rotated back. */
export function rotateRows(
  w: Float32Array,
  rows: number,
  columns: number,
  rotation: Rotation,
): void {
  const { block } = rotation
  for (let column = 0; column < columns; column++) {
    for (let from = 0; from < rows; from += block) {
      hadamard(w, from * columns + column, columns, block)
      for (let i = 0; i < block; i++) w[(from + i) * columns + column] *= sign(rotation, from + i)
    }
  }
}

/** The orthonormal Walsh–Hadamard transform of `size` numbers, `stride` apart. */
function hadamard(w: Float32Array, at: number, stride: number, size: number): void {
  for (let half = 1; half < size; half *= 2) {
    for (let start = 0; start < size; start += 2 * half) {
      for (let i = start; i < start + half; i++) {
        const p = at + i * stride
        const q = p + half * stride
        const a = w[p]
        const b = w[q]
        w[p] = a + b
        w[q] = a - b
      }
    }
  }
  const norm = 1 / Math.sqrt(size)
  for (let i = 0; i < size; i++) w[at + i * stride] *= norm
}
