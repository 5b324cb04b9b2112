export { fileSource, openSafetensorsFile } from './node/file-source.ts'
export { openModelFolder } from './node/model-folder.ts'
export { type WriteFileOptions, writeSafetensorsFile } from './node/write-file.ts'
