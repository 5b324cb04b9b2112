import { describe, expect, it } from 'vitest'
import { openSafetensors } from './open.ts'
import type { TensorData, TensorEntry } from './plan.ts'
import { type WriteOptions, writeSafetensors } from './write.ts'

function entry(name: string, length: number, data: () => TensorData): TensorEntry {
  return { name, dtype: 'U8', shape: [length], data }
}

async function collect(
  entries: Iterable<TensorEntry>,
  options?: WriteOptions,
): Promise<Uint8Array> {
  const parts: number[] = []
  for await (const part of writeSafetensors(entries, options)) parts.push(...part)
  return Uint8Array.from(parts)
}

async function* inParts(...parts: number[][]): AsyncGenerator<Uint8Array> {
  for (const part of parts) yield Uint8Array.from(part)
}

describe('writeSafetensors', () => {
  it('takes data at once, as a promise, and in parts', async () => {
    const bytes = await collect(
      [
        entry('parts', 4, () => inParts([1], [], [2, 3], [4])),
        entry('promise', 2, async () => Uint8Array.of(5, 6)),
        entry('bytes', 1, () => Uint8Array.of(7)),
        entry('empty', 0, () => new Uint8Array(0)),
        entry('nothing', 0, () => inParts()),
      ],
      { metadata: { k: 'v' } },
    )
    const file = await openSafetensors(bytes)
    expect([...file.metadata]).toEqual([['k', 'v']])
    expect([...(await file.read('parts'))]).toEqual([1, 2, 3, 4])
    expect([...(await file.read('promise'))]).toEqual([5, 6])
    expect([...(await file.read('bytes'))]).toEqual([7])
    expect(await file.read('empty')).toHaveLength(0)
  })

  it('asks for a tensor only when its turn comes', async () => {
    const asked: string[] = []
    const entries = ['a', 'b', 'c'].map((name) =>
      entry(name, 1, () => {
        asked.push(name)
        return Uint8Array.of(1)
      }),
    )
    const stream = writeSafetensors(entries)
    await stream.next()
    expect(asked).toEqual([])
    await stream.next()
    expect(asked).toEqual(['a'])
    await stream.next()
    expect(asked).toEqual(['a', 'b'])
    await stream.return()
    expect(asked).toEqual(['a', 'b'])
  })

  it('refuses data that is too short or too long, before it goes out', async () => {
    const wrong = { code: 'data-length', tensor: 'a' }
    await expect(collect([entry('a', 2, () => Uint8Array.of(1))])).rejects.toMatchObject(wrong)
    await expect(collect([entry('a', 2, () => inParts([1]))])).rejects.toMatchObject(wrong)
    await expect(collect([entry('a', 1, () => inParts())])).rejects.toMatchObject(wrong)
    await expect(collect([entry('a', 0, () => Uint8Array.of(1))])).rejects.toMatchObject(wrong)
    const sent: number[] = []
    const tooLong = async () => {
      for await (const part of writeSafetensors([entry('a', 2, () => inParts([1, 2], [3]))])) {
        sent.push(part.length)
      }
    }
    await expect(tooLong()).rejects.toMatchObject(wrong)
    expect(sent.slice(1)).toEqual([2])
  })

  it('names the tensor whose data cannot be got', async () => {
    const cause = new Error('disk')
    const failing: (() => TensorData)[] = [
      () => Promise.reject(cause),
      () => {
        throw cause
      },
      () => ({
        [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(cause) }),
      }),
    ]
    for (const data of failing) {
      await expect(collect([entry('a', 1, data)])).rejects.toMatchObject({
        code: 'data-failed',
        tensor: 'a',
        cause,
      })
    }
  })

  it('refuses data that is not bytes', async () => {
    for (const data of [Float32Array.of(1), 'x', null, undefined, new ArrayBuffer(1)]) {
      const entries = [entry('a', 1, () => data as unknown as Uint8Array)]
      await expect(collect(entries)).rejects.toMatchObject({ code: 'data-failed', tensor: 'a' })
    }
  })

  it('refuses a bad layout before the first part', async () => {
    const stream = writeSafetensors([entry('__metadata__', 1, () => Uint8Array.of(1))])
    await expect(stream.next()).rejects.toMatchObject({ code: 'bad-name' })
  })

  it('closes the data when the stream is left', async () => {
    let closed = false
    async function* data(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield Uint8Array.of(1)
      } finally {
        closed = true
      }
    }
    let parts = 0
    for await (const _ of writeSafetensors([entry('a', 100, data)])) if (++parts === 3) break
    expect(closed).toBe(true)
  })

  it('ends on abort, even while data hangs', async () => {
    const hanging: (() => TensorData)[] = [
      () => new Promise<Uint8Array>(() => {}),
      () => ({ [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }) }),
      async function* () {
        await new Promise(() => {})
        yield new Uint8Array(1)
      },
    ]
    for (const data of hanging) {
      const controller = new AbortController()
      const result = collect([entry('a', 1, data)], { signal: controller.signal })
      const reason = new Error('enough')
      setTimeout(() => controller.abort(reason), 5)
      await expect(result).rejects.toBe(reason)
    }
    await expect(collect([], { signal: AbortSignal.abort() })).rejects.toMatchObject({
      name: 'AbortError',
    })
  })
})
