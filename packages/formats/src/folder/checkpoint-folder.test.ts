/** Folders that something is wrong with leave no file open. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { writeSafetensors } from '@lowbit/safetensors'
import { expect, it, onTestFinished } from 'vitest'
import { openFolder } from './checkpoint-folder.ts'
import { nodeFolder } from './node-folder.ts'

/** A model of one tensor; `open` counts the sources that are not closed. */
async function folderOf(config: object, cut = 0) {
  const place = mkdtempSync(path.join(tmpdir(), 'lowbit-test-'))
  onTestFinished(() => rmSync(place, { recursive: true }))
  const data = new Uint8Array(4 * 6)
  const entry = { name: 'a.weight', dtype: 'F32', shape: [2, 3], data: () => data } as const
  const parts: Uint8Array[] = []
  for await (const part of writeSafetensors([entry])) parts.push(part)
  const whole = Buffer.concat(parts)
  writeFileSync(path.join(place, 'model.safetensors'), whole.subarray(0, whole.length - cut))
  writeFileSync(path.join(place, 'config.json'), JSON.stringify(config))
  const folder = nodeFolder(place)
  const seen = { open: 0, opened: 0 }
  return {
    seen,
    folder: {
      ...folder,
      async source(name: string) {
        const source = await folder.source(name)
        seen.open++
        seen.opened++
        return {
          ...source,
          async close() {
            seen.open--
            await source.close?.()
          },
        }
      },
    },
  }
}

it('a whole one is closed by its reader', async () => {
  const { folder, seen } = await folderOf({})
  const checkpoint = await openFolder(folder)
  expect(seen).toEqual({ open: 1, opened: 1 })
  await checkpoint.close()
  expect(seen.open).toBe(0)
})

it.each([
  ['one that is cut short', {}, 1, { code: 'truncated' }],
  ['one of an unknown format', { quantization_config: { quant_method: 'x' } }, 0, {}],
])('%s', async (_, config, cut, error) => {
  const { folder, seen } = await folderOf(config, cut)
  await expect(openFolder(folder)).rejects.toMatchObject(error)
  expect(seen).toEqual({ open: 0, opened: 1 })
})
