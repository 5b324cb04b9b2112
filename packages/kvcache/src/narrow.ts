/** Numbers that lie far out of their block are moved to the ends of a narrower range before they are coded. */

import type { CacheGrid, Kernels, Tensor } from '@lowbit/core'

/**
 * Cuts each block of x (whole blocks of the grid) to the share `range` of its own range, around the range's middle. The
 * few numbers that move lose more than they did, all others less, since steps are smaller: with 2 bits a third of the
 * squared error goes, with 3 bits a tenth, with 4 nothing (tooling/figures/cache-grids.ts). What a model loses by it is
 * another question.
 */
export function narrow(kernels: Kernels, x: Tensor, grid: CacheGrid, range: number): void {
  if (range >= 1) return
  const { tokens, channels } = grid
  if (channels === 1) {
    for (let row = 0; row < x.rows; row += tokens) {
      clampColumns(kernels, kernels.rows(x, row, row + tokens), range)
    }
    return
  }
  // Channels of a token: the same with tokens as columns.
  const turned = kernels.tensor(x.columns, x.rows)
  kernels.transpose(turned, x)
  for (let row = 0; row < turned.rows; row += channels) {
    clampColumns(kernels, kernels.rows(turned, row, row + channels), range)
  }
  kernels.transpose(x, turned)
  kernels.free(turned)
}

/** Each column to low … high, where low = a · least + b · largest and high the other way round: low + |x − low|₊ − |x − high|₊. */
function clampColumns(kernels: Kernels, x: Tensor, range: number): void {
  const { rows, columns } = x
  const line = () => kernels.tensor(1, columns)
  const moments = kernels.tensor(4, columns)
  kernels.columnMoments(moments, x)
  const [least, largest] = [kernels.rows(moments, 2, 3), kernels.rows(moments, 3, 4)]
  const [a, b] = [(1 + range) / 2, (1 - range) / 2].map((value) =>
    kernels.upload(Float32Array.of(value), 1, 1),
  )
  const minus = kernels.upload(new Float32Array(columns).fill(-1), 1, columns)
  const [low, high, part] = [line(), line(), line()]
  for (const [end, near, far] of [
    [low, least, largest],
    [high, largest, least],
  ]) {
    kernels.scale(end, near, { rows: a })
    kernels.scale(part, far, { rows: b })
    kernels.add(end, part)
  }
  const [inside, over] = [kernels.tensor(rows, columns), kernels.tensor(rows, columns)]
  kernels.scale(inside, x, { bias: low })
  kernels.activate(inside, inside, undefined, 'relu')
  kernels.scale(over, x, { bias: high })
  kernels.activate(over, over, undefined, 'relu')
  kernels.scale(over, over, { columns: minus })
  kernels.add(inside, over)
  kernels.add(inside, low)
  kernels.copy(x, inside)
  kernels.free(moments, a, b, minus, low, high, part, inside, over)
}
