/** Steps that repeat, and those that turn out to be others: on an emulated GPU, where g++ is. */

import { afterEach, describe, expect, it } from 'vitest'
import { buildEmulation, noEmulation } from '../../tooling/emulate.ts'
import { openDevice } from './device.ts'

const reason = noEmulation()
const library = reason ? '' : buildEmulation()

afterEach(() => {
  delete process.env.LOWBIT_EMULATED_GRAPHS
})

const open = (memoryLimit = Number.POSITIVE_INFINITY) =>
  openDevice({ library, ordinal: 0, memoryLimit })

describe.skipIf(reason !== undefined)(`steps${reason ? ` (${reason})` : ''}`, () => {
  it.each(['with graphs', 'on a driver that has none'])('%s', async (which) => {
    const none = which !== 'with graphs'
    if (none) process.env.LOWBIT_EMULATED_GRAPHS = '0'
    const device = open()
    const [x, rows] = [device.allocate(16), device.allocate(64 * 16)]
    device.zero(rows)
    let expected = 0
    /** Adds `by`, which comes from the host, to x; x is kept in the step's row. */
    async function step(row: number, by: number, more?: 'kernels' | 'upload' | 'fewer') {
      device.borrow(device.place(Float32Array.of(by, by, by, by)), (y) => {
        for (let i = 0; i < 40; i++) {
          device.run('add', { x, y, count: 4, period: 4 }, 1)
          expected += by
          if (i === 20 && more === 'fewer') break
          if (i !== 20 || more === undefined) continue
          if (more === 'kernels') device.zero(x)
          else device.write(x, new Float32Array(4))
          if (more === 'upload') device.release(device.place(new Float32Array(1000)))
          expected = 0
        }
        device.copy({ address: rows.address + row * 16, bytes: 16 }, x)
      })
      const found = new Float32Array(4)
      await device.read(x, found)
      expect([...found]).toEqual([expected, expected, expected, expected])
    }
    device.zero(x)
    await device.read(x, new Float32Array(4))
    for (const row of [0, 1, 2, 3]) await step(row, row + 1)
    // Compared with what was recorded, kernel by kernel: x is where it was, the row and `by` are not.
    expect(device.graphs).toEqual(
      none
        ? { launched: 0, kernels: 0, changed: 0 }
        : { launched: 2, kernels: 2 * 42, changed: 2 * 2 },
    )
    await step(4, 2, 'kernels')
    await step(5, 3, 'upload')
    await step(6, 3, 'fewer')
    await step(7, 1)
    expect(device.graphs.launched).toBe(none ? 0 : 3)
    const all = new Float32Array(64 * 4)
    await device.read(rows, all)
    expect([0, 1, 2, 3, 7].map((row) => all[row * 4])).toEqual([40, 120, 240, 400, expected])
    device.dispose()
  })

  it('memory that is given back to the driver is used before', async () => {
    const device = open()
    process.env.LOWBIT_EMULATED_MEMORY = String(2 ** 20)
    try {
      const sum = device.place(new Float32Array(4))
      // The first round also makes the sum, two are recorded, two are graphs, and the last is left.
      for (let round = 0; round < 6; round++) {
        const y = device.place(new Float32Array(4).fill(1))
        for (let i = 0; i < 40; i++) device.run('add', { x: sum, y, count: 4, period: 4 }, 1)
        device.release(y)
        // There is no room for both sizes: what was given back goes to the driver.
        if (round === 5) device.release(device.allocate(2 ** 19 + 2 ** 18))
        else device.release(device.allocate(2 ** 19))
        const found = new Float32Array(4)
        await device.read(sum, found)
        expect(found[0]).toBe(40 * (round + 1))
      }
      expect(device.graphs.launched).toBe(2)
    } finally {
      delete process.env.LOWBIT_EMULATED_MEMORY
      device.dispose()
    }
  })
})
