"""The browser demo, ``banet-stream demo``: a page over the same public API as the command line.

command    options and start                 app        the page: tabs, theme, examples
video      the Video tab                     webcam     the Webcam tab
photo      the Photo tab                     camera     one live camera, through WebRTC
explained  the How it works tab              sharing    one model, taken in turns
chooser    the choice of a background        uploads    what may come in, and in which words it is refused
components Gradio's, made safe               sessions   one visitor's files and work
samples    example clip and backgrounds, drawn on the spot

Needs the extra ``demo`` (Gradio, aiortc).
"""
