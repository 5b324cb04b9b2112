import { describe, expect, it } from 'vitest'
import { openSharded } from './sharded.ts'
import { bytesSource, type Source } from './source.ts'
import { writeSafetensors } from './write.ts'

async function shard(
  tensors: Record<string, number[]>,
  metadata: Record<string, string> = {},
): Promise<Uint8Array> {
  const entries = Object.entries(tensors).map(([name, values]) => ({
    name,
    dtype: 'U8' as const,
    shape: [values.length],
    data: () => Uint8Array.from(values),
  }))
  const parts: number[] = []
  for await (const part of writeSafetensors(entries, { metadata })) parts.push(...part)
  return Uint8Array.from(parts)
}

const first = await shard({ a: [1, 2], b: [3] }, { format: 'pt', from: 'first' })
const second = await shard({ c: [4, 5, 6] }, { format: 'pt', from: 'second', more: 'x' })
const files = new Map([
  ['one.safetensors', first],
  ['two.safetensors', second],
])
const index = {
  metadata: { total_size: 6 },
  weight_map: { c: 'two.safetensors', a: 'one.safetensors', b: 'one.safetensors' },
}

/** Opens from `files` and counts what was closed. */
function opener(from: ReadonlyMap<string, Uint8Array> = files) {
  const opened: string[] = []
  const closed: string[] = []
  const open = async (name: string): Promise<Source> => {
    const bytes = from.get(name)
    if (bytes === undefined) throw new Error('nothing there')
    opened.push(name)
    return {
      ...bytesSource(bytes),
      close: async () => {
        closed.push(name)
      },
    }
  }
  return { open, opened, closed }
}

describe('openSharded', () => {
  it('joins the files in the order of the index', async () => {
    const { open, opened, closed } = opener()
    const model = await openSharded(JSON.stringify(index), open)
    expect(opened.toSorted()).toEqual(['one.safetensors', 'two.safetensors'])
    expect([...model.tensors.keys()]).toEqual(['c', 'a', 'b'])
    expect(model.tensors.get('a')?.file).toBe('one.safetensors')
    expect([...(await model.read('c'))]).toEqual([4, 5, 6])
    expect([...(await model.readRange('a', 1, 1))]).toEqual([2])
    expect([...model.shards.keys()]).toEqual(['two.safetensors', 'one.safetensors'])
    await model.close()
    expect(closed.toSorted()).toEqual(['one.safetensors', 'two.safetensors'])
    await expect(model.read('a')).rejects.toMatchObject({ code: 'closed' })
  })

  it('joins metadata; the file named first wins', async () => {
    const model = await openSharded(index, opener().open)
    expect(Object.fromEntries(model.metadata)).toEqual({ format: 'pt', from: 'second', more: 'x' })
    expect(model.shards.get('one.safetensors')?.metadata.get('from')).toBe('first')
  })

  it('refuses names that the model lacks', async () => {
    const model = await openSharded(index, opener().open)
    await expect(model.read('d')).rejects.toMatchObject({ code: 'tensor-not-found', tensor: 'd' })
  })

  it('names a file that cannot be opened, and closes the others', async () => {
    const { open, opened, closed } = opener(new Map([['one.safetensors', first]]))
    await expect(openSharded(index, open)).rejects.toMatchObject({
      code: 'missing-shard',
      file: 'two.safetensors',
      cause: expect.objectContaining({ message: 'nothing there' }),
    })
    expect(closed).toEqual(opened)
  })

  it('refuses a tensor that the named file lacks', async () => {
    const { open, closed } = opener()
    const wrong = { weight_map: { ...index.weight_map, d: 'two.safetensors' } }
    await expect(openSharded(wrong, open)).rejects.toMatchObject({
      code: 'missing-tensor',
      file: 'two.safetensors',
      tensor: 'd',
    })
    expect(closed).toHaveLength(2)
  })

  it('refuses a tensor that the index does not name, or places elsewhere', async () => {
    const less = { weight_map: { c: 'two.safetensors', a: 'one.safetensors' } }
    await expect(openSharded(less, opener().open)).rejects.toMatchObject({
      code: 'unlisted-tensor',
      file: 'one.safetensors',
      tensor: 'b',
    })
    const elsewhere = { weight_map: { ...index.weight_map, b: 'two.safetensors' } }
    await expect(openSharded(elsewhere, opener().open)).rejects.toMatchObject({
      code: 'unlisted-tensor',
      file: 'one.safetensors',
      tensor: 'b',
    })
  })

  it('passes on what is wrong within a file, with its name', async () => {
    const { open, closed } = opener(
      new Map([...files, ['two.safetensors', second.subarray(0, -1)]]),
    )
    await expect(openSharded(index, open)).rejects.toMatchObject({
      code: 'truncated',
      file: 'two.safetensors',
      tensor: 'c',
    })
    expect(closed).toHaveLength(2)
  })

  it('does not ask for names that leave the folder', async () => {
    const { open, opened } = opener()
    const evil = { weight_map: { a: 'one.safetensors', b: '../../secret' } }
    await expect(openSharded(evil, open, { name: 'index.json' })).rejects.toMatchObject({
      code: 'unsafe-file-name',
      tensor: 'b',
      file: 'index.json',
    })
    expect(opened).toEqual([])
  })

  it('opens no more than eight files at once', async () => {
    let now = 0
    let most = 0
    const names = Array.from({ length: 40 }, (_, number) => `${number}`)
    const many = { weight_map: Object.fromEntries(names.map((name) => [name, `${name}.st`])) }
    const model = await openSharded(many, async (file) => {
      most = Math.max(most, ++now)
      await new Promise((resolve) => setTimeout(resolve, 1))
      now--
      return shard({ [file.slice(0, -3)]: [1] })
    })
    expect([...model.tensors.keys()]).toEqual(names)
    expect(most).toBeLessThanOrEqual(8)
  })

  it('passes on an abort as it is', async () => {
    const reason = AbortSignal.abort().reason
    await expect(openSharded(index, () => Promise.reject(reason))).rejects.toBe(reason)
  })
})
