/** Tensors: what goes in comes out, views share memory, misuse is an error, nothing leaks. */

import { perRow, seededRandom, signedGrid } from '@lowbit/core'
import type { Declare } from '../../checks/declare.ts'
import { expect } from '../../checks/expect.ts'
import { randomValues } from '../../random.ts'
import { ODD_SHAPES } from '../../samples/matrices.ts'
import { scalarMatrix } from '../../samples/scalar.ts'
import { type BenchOf, expectRefusal } from './bench.ts'

export function memoryContract(open: BenchOf, it: Declare): void {
  it('reads back what was uploaded, to the bit', async () => {
    const { kernels, up } = open()
    for (const [rows, columns] of ODD_SHAPES) {
      const values = randomValues(rows * columns, seededRandom(rows))
      values[0] = -0
      const read = await kernels.read(up(values, rows, columns))
      expect(read, `${rows} × ${columns}`).toEqual(values)
    }
  })

  it('reads back codes', async () => {
    const { kernels } = open()
    const codes = Uint8Array.from({ length: 256 }, (_, i) => i)
    const tensor = kernels.upload(codes, 2, 128)
    expect(tensor).toMatchObject({ rows: 2, columns: 128, type: 'u8' })
    expect(await kernels.readCodes(tensor)).toEqual(codes)
    kernels.free(tensor)
  })

  it('reads back words, and writes rows of them', async () => {
    const { kernels, zeros } = open()
    const words = Uint32Array.of(0, 1, 0xffffffff, 0x80000000, 0xdeadbeef, 7)
    const tensor = kernels.upload(words, 3, 2)
    expect(tensor).toMatchObject({ rows: 3, columns: 2, type: 'u32' })
    expect(await kernels.readWords(tensor)).toEqual(words)
    const other = zeros(3, 2, 'u32')
    kernels.write(other, words.subarray(2, 4), 1)
    kernels.copy(kernels.rows(other, 2, 3), kernels.rows(tensor, 2, 3))
    expect([...(await kernels.readWords(other))]).toEqual([0, 0, ...words.subarray(2)])
    kernels.free(tensor)
  })

  it('a new tensor holds zeros, even where something lay before', async () => {
    const { kernels, up, zeros } = open()
    kernels.free(kernels.upload(new Float32Array(1000).fill(7), 10, 100))
    up([1], 1, 1)
    expect(await kernels.read(zeros(10, 100))).toEqual(new Float32Array(1000))
    const codes = await kernels.readCodes(zeros(3, 5, 'u8'))
    expect(codes).toEqual(new Uint8Array(15))
  })

  it('uploading and reading copy', async () => {
    const { kernels, up } = open()
    const values = Float32Array.of(1, 2, 3)
    const tensor = up(values, 1, 3)
    values[0] = 9
    const read = await kernels.read(tensor)
    read[1] = 9
    expect([...(await kernels.read(tensor))]).toEqual([1, 2, 3])
  })

  it('write replaces whole rows', async () => {
    const { kernels, up, zeros } = open()
    const tensor = up([1, 2, 3, 4, 5, 6], 3, 2)
    kernels.write(tensor, Float32Array.of(7, 8), 1)
    expect([...(await kernels.read(tensor))]).toEqual([1, 2, 7, 8, 5, 6])
    kernels.write(tensor, Float32Array.of(0, 0, 9, 9))
    expect([...(await kernels.read(tensor))]).toEqual([0, 0, 9, 9, 5, 6])
    const codes = zeros(2, 2, 'u8')
    kernels.write(codes, Uint8Array.of(3, 4), 1)
    expect([...(await kernels.readCodes(codes))]).toEqual([0, 0, 3, 4])
  })

  it('rows is a window on the same memory', async () => {
    const { kernels, up } = open()
    const tensor = up([1, 2, 3, 4, 5, 6], 3, 2)
    const window = kernels.rows(tensor, 1, 3)
    expect(window).toMatchObject({ rows: 2, columns: 2, type: 'f32' })
    expect([...(await kernels.read(window))]).toEqual([3, 4, 5, 6])
    kernels.write(kernels.rows(window, 1, 2), Float32Array.of(7, 8))
    kernels.add(window, up([10, 20], 1, 2))
    expect([...(await kernels.read(tensor))]).toEqual([1, 2, 13, 24, 17, 28])
  })

  it('copy takes numbers and codes, also between windows', async () => {
    const { kernels, up, zeros } = open()
    const tensor = up([1, 2, 3, 4, 5, 6], 3, 2)
    const out = zeros(3, 2)
    kernels.copy(out, tensor)
    kernels.write(tensor, new Float32Array(6))
    expect([...(await kernels.read(out))]).toEqual([1, 2, 3, 4, 5, 6])
    kernels.copy(kernels.rows(tensor, 1, 2), kernels.rows(out, 2, 3))
    expect([...(await kernels.read(tensor))]).toEqual([0, 0, 5, 6, 0, 0])
    const [codes, others] = [zeros(1, 5, 'u8'), zeros(1, 5, 'u8')]
    kernels.write(codes, Uint8Array.of(1, 2, 3, 4, 255))
    kernels.copy(others, codes)
    expect([...(await kernels.readCodes(others))]).toEqual([1, 2, 3, 4, 255])
    await expectRefusal('another shape', () => kernels.copy(out, zeros(2, 3)))
    await expectRefusal('another type', () => kernels.copy(out, zeros(3, 2, 'u8')))
  })

  it('operations are done in the order of the calls', async () => {
    const { kernels, up } = open()
    const [a, b] = [up([1], 1, 1), up([2], 1, 1)]
    kernels.add(a, b)
    const early = kernels.read(a)
    kernels.add(a, b)
    kernels.write(b, Float32Array.of(100))
    kernels.add(a, b)
    expect([...(await early)]).toEqual([3])
    expect([...(await kernels.read(a))]).toEqual([105])
  })

  it('bytes counts tensors and weights, and returns to its start', async () => {
    const { kernels } = open()
    const start = kernels.bytes
    const tensors = [kernels.tensor(33, 65), kernels.tensor(7, 9, 'u8')]
    expect(kernels.bytes - start).toBeGreaterThanOrEqual(33 * 65 * 4 + 63)
    const between = kernels.bytes
    const random = seededRandom(5)
    const weight = kernels.load(scalarMatrix(signedGrid(4), 32, 64, perRow(64), random))
    expect(kernels.bytes - between).toBeGreaterThanOrEqual(32 * 32)
    expect(weight.bytes).toBeGreaterThanOrEqual(32 * 32)
    expect(weight.variant).not.toBe('')
    kernels.unload(weight)
    expect(kernels.bytes).toBe(between)
    kernels.rows(tensors[0], 0, 3)
    kernels.free(...tensors)
    expect(kernels.bytes).toBe(start)
  })

  it('freed memory is used again', async () => {
    const { kernels } = open()
    // 400 MB in all, of which 4 MB at a time.
    for (let i = 0; i < 100; i++) kernels.free(kernels.tensor(1024, 1024))
    const tensor = kernels.tensor(2, 2)
    expect([...(await kernels.read(tensor))]).toEqual([0, 0, 0, 0])
    kernels.free(tensor)
  })

  it('use after free is a LowbitError', async () => {
    const { kernels, up } = open()
    const tensor = kernels.upload(Float32Array.of(1, 2), 1, 2)
    const window = kernels.rows(tensor, 0, 1)
    kernels.free(tensor)
    await expectRefusal('read', () => kernels.read(tensor))
    await expectRefusal('write', () => kernels.write(tensor, Float32Array.of(1, 2)))
    await expectRefusal('rows', () => kernels.rows(tensor, 0, 1))
    await expectRefusal('add', () => kernels.add(up([1, 2], 1, 2), tensor))
    await expectRefusal('a window on freed memory', () => kernels.read(window))
    const weight = kernels.load({ rows: 1, columns: 2, type: 'f32', values: Float32Array.of(1, 2) })
    kernels.unload(weight)
    await expectRefusal('matmul', () => kernels.matmul(up([0], 1, 1), up([1, 2], 1, 2), weight))
  })

  it('sizes and types that do not fit are LowbitErrors', async () => {
    const { kernels, up, zeros } = open()
    const tensor = up([1, 2, 3, 4], 2, 2)
    await expectRefusal('upload', () => kernels.upload(new Float32Array(5), 2, 2))
    await expectRefusal('an impossible size', () => kernels.tensor(-1, 2))
    await expectRefusal('half a row', () => kernels.write(tensor, Float32Array.of(1)))
    await expectRefusal('past the end', () => kernels.write(tensor, Float32Array.of(1, 2), 2))
    await expectRefusal('bytes into f32', () => kernels.write(tensor, Uint8Array.of(1, 2)))
    await expectRefusal('rows past the end', () => kernels.rows(tensor, 1, 3))
    await expectRefusal('read of codes', () => kernels.read(zeros(1, 1, 'u8')))
    await expectRefusal('readCodes of f32', () => kernels.readCodes(tensor))
  })
}
