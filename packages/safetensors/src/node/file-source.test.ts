import { mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fileSource, openSafetensorsFile } from './file-source.ts'

let folder = ''
let path = ''
const json = '{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'))
  path = join(folder, 'model.safetensors')
  const prefix = Uint8Array.of(json.length, 0, 0, 0, 0, 0, 0, 0)
  await writeFile(path, Buffer.concat([prefix, Buffer.from(json), Uint8Array.of(7, 8, 9)]))
})

afterAll(() => rm(folder, { recursive: true }))

describe('openSafetensorsFile', () => {
  it('opens a path or a file URL, and closes it', async () => {
    for (const input of [path, pathToFileURL(path)]) {
      const file = await openSafetensorsFile(input)
      expect([...(await file.read('a'))]).toEqual([7, 8, 9])
      expect(file.name).toBe(path)
      await file.close()
      await expect(file.read('a')).rejects.toMatchObject({ code: 'closed', file: path })
    }
  })

  it('leaves a handle open that it did not open', async () => {
    const handle = await open(path)
    const file = await openSafetensorsFile(handle, { name: 'mine' })
    expect([...(await file.readRange('a', 1, 2))]).toEqual([8, 9])
    await file.close()
    expect((await handle.stat()).size).toBe(file.byteLength)
    await handle.close()
  })

  it('says that there is no such file', async () => {
    const missing = join(folder, 'missing')
    await expect(openSafetensorsFile(missing)).rejects.toMatchObject({
      code: 'file-not-found',
      file: missing,
    })
  })

  it('refuses a folder', async () => {
    await expect(openSafetensorsFile(folder)).rejects.toMatchObject({
      code: 'source-failed',
      file: folder,
    })
  })

  it('closes a file that is not a safetensors file', async () => {
    const bad = join(folder, 'bad')
    await writeFile(bad, 'nothing of the kind')
    await expect(openSafetensorsFile(bad)).rejects.toMatchObject({
      code: 'header-too-large',
      file: bad,
    })
  })

  it('notices a file that became shorter', async () => {
    const copy = join(folder, 'copy')
    await writeFile(copy, 'x'.repeat(100))
    const source = await fileSource(copy)
    await truncate(copy, 50)
    expect(await source.read(40, 20)).toHaveLength(10)
    await source.close?.()
  })
})
