/** Blocks as rectangles, where they are. */

import type { Blocks } from '@lowbit/core'

export interface Rectangle {
  readonly rows: number
  readonly columns: number
}

export function rectangles(blocks: Blocks, rows: number, columns: number): Rectangle | undefined {
  if ('rows' in blocks) return blocks
  const { elements } = blocks
  if (columns % elements === 0) return { rows: 1, columns: elements }
  if (elements % columns === 0) return { rows: elements / columns, columns }
  return elements >= rows * columns ? { rows, columns } : undefined
}
