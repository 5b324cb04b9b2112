import { describe, expect, it } from 'vitest'
import { orAbort } from './abort.ts'

describe('orAbort', () => {
  it('gives what the promise gives', async () => {
    expect(await orAbort(Promise.resolve(1))).toBe(1)
    expect(await orAbort(2, new AbortController().signal)).toBe(2)
    const failed = Promise.reject(new Error('no'))
    await expect(orAbort(failed, new AbortController().signal)).rejects.toThrow('no')
  })

  it('does not wait for a promise that hangs', async () => {
    const controller = new AbortController()
    const result = orAbort(new Promise(() => {}), controller.signal)
    const reason = new Error('enough')
    controller.abort(reason)
    await expect(result).rejects.toBe(reason)
    await expect(orAbort(new Promise(() => {}), controller.signal)).rejects.toBe(reason)
  })
})
