/** Colours, where the stream shows them: styleText looks at NO_COLOR, FORCE_COLOR and isTTY. */

import { styleText } from 'node:util'

type Format = Parameters<typeof styleText>[0]

export function paint(
  format: Format,
  text: string,
  stream: NodeJS.WritableStream = process.stdout,
): string {
  return styleText(format, text, { stream })
}
