import { describe, expect, it } from 'vitest'
import { createMemory } from './memory.ts'
import { seeded } from './plain-loops.ts'

describe('memory', () => {
  it('gives aligned blocks that do not overlap, and joins what is freed', () => {
    const memory = createMemory(false, 2 ** 26)
    const random = seeded(1)
    const blocks: { at: number; size: number }[] = []
    for (let i = 0; i < 2000; i++) {
      if (blocks.length > 20 && random() < 0.5) {
        const [{ at }] = blocks.splice(Math.floor(random() * blocks.length), 1)
        memory.release(at)
        continue
      }
      const size = Math.floor(random() ** 4 * 50_000)
      const at = memory.allocate(size)
      expect(at % 64).toBe(0)
      for (const other of blocks) {
        expect(at + size + 16 <= other.at || other.at + other.size + 16 <= at).toBe(true)
      }
      blocks.push({ at, size })
    }
    expect(memory.held).toBe(blocks.reduce((sum, { size }) => sum + size, 0))
    for (const { at } of blocks) memory.release(at)
    expect(memory.held).toBe(0)
    const first = memory.allocate(10)
    // Everything was joined: the first block starts where the first of all did.
    expect(first).toBe(65536)
  })

  it('keeps contents while it grows, shared or not', () => {
    for (const shared of [false, true]) {
      const memory = createMemory(shared, 2 ** 28)
      const at = memory.allocate(4)
      memory.f32[at / 4] = 7
      const far = memory.allocate(2 ** 26)
      memory.u8[far + 2 ** 26 - 1] = 1
      expect(memory.f32[at / 4]).toBe(7)
    }
  })

  it('says how much there was no room for', () => {
    const memory = createMemory(false, 2 ** 20)
    expect(() => memory.allocate(2 ** 21)).toThrow(/2097152 bytes/)
    try {
      memory.allocate(2 ** 21)
    } catch (error) {
      expect(error).toMatchObject({ code: 'out-of-memory' })
    }
    expect(memory.held).toBe(0)
    memory.allocate(1000)
  })
})
