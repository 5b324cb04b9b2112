/** The bundled model and its texts, which lie beside the page. */

import { LowbitError } from '@lowbit/core'

let folder = new URL('demo/', globalThis.location.href)

/** A worker's own address says nothing about where the page is. */
export function setBase(page: string): void {
  folder = new URL('demo/', page)
}

export async function demoFile(name: string): Promise<Response> {
  const response = await fetch(new URL(name, folder))
  if (response.ok) return response
  throw new LowbitError('http-status', `the bundled model is not there: ${response.status}`, {
    file: name,
  })
}

export const demoText = async (which: 'calibration' | 'evaluation'): Promise<string> =>
  (await demoFile(`${which}.txt`)).text()
