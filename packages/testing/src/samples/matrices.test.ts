import { decode, isQuantized, validateMatrix } from '@lowbit/core'
import { expect, it } from 'vitest'
import { denseValues } from '../reference/matrices.ts'
import { sampleMatrices } from './matrices.ts'

it('samples are valid, finite, and each has a name of its own', () => {
  const samples = sampleMatrices()
  expect(new Set(samples.map(({ name }) => name)).size).toBe(samples.length)
  for (const { name, matrix } of samples) {
    if (isQuantized(matrix)) validateMatrix(matrix, name)
    const values = isQuantized(matrix) ? decode(matrix) : denseValues(matrix)
    expect(values.every(Number.isFinite), name).toBe(true)
    // A single weight may well mean 0.
    if (values.length < 100) continue
    expect(
      values.some((value) => value !== 0),
      `${name}: not all zeros`,
    ).toBe(true)
  }
})
