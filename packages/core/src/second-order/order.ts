/** In which order columns are quantized. */

export type OrderName = 'activation' | 'group-aware' | 'none'

/**
 * order[i] = the input feature quantized i-th; undefined for the natural order.
 * `activation` (act-order): by falling diag(H). `group-aware` (GAR): the same inside each group, groups
 * by their largest diag(H), so that a group's columns stay together and its scale can be fitted when
 * the pass reaches it. Ties keep their natural order, so the result does not depend on the sort.
 */
export function columnOrder(
  name: OrderName,
  diagonal: Float32Array,
  groupSize: number,
): Uint32Array | undefined {
  if (name === 'none') return undefined
  const falling = (a: number, b: number): number => diagonal[b] - diagonal[a] || a - b
  const all = Array.from(diagonal.keys())
  if (name === 'activation') return Uint32Array.from(all.sort(falling))
  const groups: number[][] = []
  for (let from = 0; from < all.length; from += groupSize) {
    groups.push(all.slice(from, from + groupSize).sort(falling))
  }
  // Only the last group may be shorter than the others; it stays last so that groups keep their places.
  const ragged = all.length % groupSize === 0 ? undefined : groups.pop()
  groups.sort((a, b) => falling(a[0], b[0]))
  if (ragged) groups.push(ragged)
  return Uint32Array.from(groups.flat())
}

/** inverse[order[i]] = i. */
export function inverseOrder(order: Uint32Array): Uint32Array {
  const inverse = new Uint32Array(order.length)
  for (let i = 0; i < order.length; i++) inverse[order[i]] = i
  return inverse
}
