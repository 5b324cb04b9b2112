import { expect, it } from 'vitest'
import { columnOrder, inverseOrder } from './order.ts'

const diagonal = Float32Array.of(1, 5, 5, 0, 9, 2, 7)

it('act-order: by falling diag(H), ties as they were', () => {
  expect([...columnOrder('activation', diagonal, 3)!]).toEqual([4, 6, 1, 2, 5, 0, 3])
})

it('group-aware: groups stay together, the ragged one last', () => {
  expect([...columnOrder('group-aware', diagonal, 3)!]).toEqual([4, 5, 3, 1, 2, 0, 6])
})

it('none: as they are', () => {
  expect(columnOrder('none', diagonal, 3)).toBeUndefined()
})

it('an inverse order undoes an order', () => {
  const order = columnOrder('activation', diagonal, 3)!
  const inverse = inverseOrder(order)
  expect(Array.from(order, (column) => inverse[column])).toEqual([0, 1, 2, 3, 4, 5, 6])
})
